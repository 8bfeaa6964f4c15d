"""All screens over a coordinator, in the order of the menu."""

from disinherit.ui.screens import (
    audit,
    campaign,
    campaigns,
    graph,
    models,
    new_request,
    overview,
    owners,
    system,
)
from disinherit.ui.screens.screen import Screen

_KEEPERS = ("operator", "approver")

NEW_REQUEST = Screen(
    "/request/new",
    "New request",
    "new_request",
    new_request.load,
    new_request.command,
    roles=("operator",),
)
SCREENS = (
    Screen("/overview", "Overview", "overview", overview.load, overview.command, live=True),
    Screen("/campaigns", "Campaigns", "campaigns", campaigns.load, campaigns.command, live=True),
    NEW_REQUEST,
    Screen("/owners", "Owners", "owners", owners.load, owners.command, live=True),
    Screen("/graph", "Graph", "graph", graph.load, graph.command),
    Screen(
        "/models",
        "Models",
        "models",
        models.load,
        models.command,
        roles=("viewer", "operator", "approver", "owner"),
    ),
    Screen("/audit", "Audit", "audit", audit.load, audit.command, roles=_KEEPERS),
    Screen("/system", "System", "system", system.load, system.command, roles=_KEEPERS),
    Screen(
        "/campaign",
        "Campaign",
        "campaign",
        campaign.load,
        campaign.command,
        live=True,
        menu=False,
    ),
    Screen("/model", "Model", "model", models.load_one, models.command_one, menu=False),
)


def home_of(role: str) -> str:
    """Return the path of the first screen that a role may see.

    Example:
        >>> home_of("viewer"), home_of("owner")
        ('/overview', '/models')
    """
    return next(one.path for one in SCREENS if role in one.roles)
