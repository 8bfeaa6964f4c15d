"""What was discovered, as an edge list: all that has a direction, and a name in `graph import`."""

import csv
import io
from collections.abc import Mapping

from disinherit.families.discovering import Discovered


def edge_list(found: Discovered) -> tuple[str, Mapping[str, str]]:
    """Return an edge list as CSV, and what it leaves out.

    Args:
        found: what was discovered.

    Returns:
        The list, of all relations with a direction whose models have names in the import; and name
        of a model that has none there -> why. Relations of it are left out, whole.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["child", "parent", "relation", "weight", "revision", "confidence"])
    left: dict[str, str] = {}
    for kin in (kin for kin in found.kin if kin.directed):
        reasons = {kin.child: found.listed[kin.child].as_child}
        reasons |= {name: found.listed[name].as_parent for name, _ in kin.parents}
        reasons = {name: reason for name, reason in reasons.items() if reason}
        left |= reasons
        if reasons:
            continue
        child = found.listed[kin.child].name
        for name, share in kin.parents:
            one = found.listed[name]
            rows.writerow(
                [child, one.name, kin.relation, f"{share:.6g}", one.revision, kin.confidence]
            )
    return text.getvalue(), left
