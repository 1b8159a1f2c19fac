"""What there is, one row each: recipes of training. Imports nothing heavy; a row names what is imported when it is used."""

import importlib
from typing import Any

RECIPES = {
    "vq": "difflate.train.recipes.vq",
    "pixel": "difflate.train.recipes.pixel",
    "latent": "difflate.train.recipes.latent",
    "hyperprior": "difflate.train.recipes.hyperprior",
    "cdc": "difflate.train.recipes.cdc",
    "refiner": "difflate.train.recipes.refiner",
}
"""What a configuration's key `recipe` names, and the module whose ``RECIPE`` trains it."""


def recipe(name: str) -> Any:
    """The `difflate.train.recipe.Recipe` of that name. Raises KeyError."""
    return importlib.import_module(RECIPES[name]).RECIPE
