"""The environment of templates: everything is escaped, a name that is missing is an error."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from disinherit.documents.words import number, plain, signed


def environment(package: str = "disinherit.documents") -> Environment:
    """Return an environment with the templates of a package, and those shared by all pages.

    Args:
        package: the package with a folder `templates`.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("disinherit.documents")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(number=number, signed=signed, plain=plain)
    return found
