"""Names of image files. Imports nothing, so that commands that list files start at once."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".jp2"}
"""Of the formats that `difflate.media.files` reads, for images in folders; a file that is named itself may have any."""
