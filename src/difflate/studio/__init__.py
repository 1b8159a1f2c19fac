"""The studio: a page on which people try what difflate does with their own photographs and clips.

`watching` makes an iterator of work that tells how far it is; `photographs`, `clips` and `generators` are what the page
does, without a page; `page` is the page, and `serving` what gives it to browsers.
"""
