"""Collect the results of a group's Observations, and the panels that hold them together.

Source: HL7 FHIR R4 (4.0.1), "Observation" (grouping: components, members).
"""

from typing import Any

from myhealth.intake.content import ENVELOPE
from myhealth.intake.formats.fhir.element import Element, codings_of, compact
from myhealth.intake.formats.fhir.values import lacks_own_value, observation_name, observation_result

# The facts that components inherit from their Observation; the panel does not repeat them.
OF_COMPONENTS = (
    *("status", "updated_at", "version", "taken_at", "taken_precision", "taken_until", "issued_at"),
    *("specimen", "method", "body_site", "device", "performers"),
)


class PanelCollector:
    """Collects the `results` and `panels` of a record, and the `parts` of resources that are the results.

    `shared`: the facts of the check-up, which its results do not repeat.
    """

    def __init__(self, shared: dict[str, Any]) -> None:
        self.results: list[dict[str, Any]] = []
        self.panels: list[dict[str, Any]] = []
        self.parts: list[Element] = []
        self._shared = shared
        self._names: dict[int, str] = {}  # of the panels, by the `id()` of their entries
        self._used: set[str] = set()

    def add(self, part: Element, facts: dict[str, Any], parent: int | None, key: int) -> None:
        """Add the results of an Observation: its own value, if it has one, and those of its components.

        An Observation without value, components and members is one result with an absent value. `parent`: the key of
        its panel; `key`: its own.
        """
        facts = {name: value for name, value in facts.items() if self._shared.get(name) != value}
        group = self._names.get(parent or 0)
        components, valued = part.parts("component"), not lacks_own_value(part)
        if components or part.has_parts("hasMember"):
            group = self._add_panel(part, facts, group, key, components=bool(components), valued=valued)
        if valued:
            self.results.append(observation_result(part) | facts | compact(group=group))
            self.parts.append(part)
        inherited = {name: facts[name] for name in OF_COMPONENTS if name in facts}
        notes = [] if valued else facts.get("notes", [])
        for component in components:
            result = observation_result(component) | inherited | compact(group=group, notes=notes)
            self.results.append(result)
            self.parts.append(component)
            notes = []  # components have no notes of their own: the first one carries all

    def _add_panel(
        self, part: Element, facts: dict[str, Any], group: str | None, key: int, *, components: bool, valued: bool
    ) -> str:
        """Add a panel, and return the name under which its results find it."""
        name = plain = observation_name(part) or "Panel"
        number = 1
        while name in self._used:
            number += 1
            name = f"{plain} ({number})"
        self._used.add(name)
        self._names[key] = name
        panel = compact(name=name, group=group, components=components or None, valued=valued or None)
        if not valued:
            dropped = (*OF_COMPONENTS, "notes") if components else ENVELOPE
            panel |= {each: value for each, value in facts.items() if each not in dropped}
            panel |= compact(codings=codings_of(part, "code"))
        self.panels.append(panel)
        return name
