"""All rules in one class."""

from __future__ import annotations

from mbframework.testing.conformance.content import ContentRules
from mbframework.testing.conformance.declaration import DeclarationRules
from mbframework.testing.conformance.delivery import DeliveryRules
from mbframework.testing.conformance.facts import FactRules
from mbframework.testing.conformance.failure import FailureRules
from mbframework.testing.conformance.inside import BufferRules
from mbframework.testing.conformance.lifecycle import LifecycleRules
from mbframework.testing.conformance.processes import ProcessRules


class ProviderContract(
    DeliveryRules, ContentRules, FailureRules, LifecycleRules, FactRules, DeclarationRules, ProcessRules, BufferRules
):
    """Subclass it as ``Test…``, and supply what :class:`~mbframework.testing.conformance.hooks.Hooks` lists.

    Every ``test_…`` method is one rule of the contract. Where one cannot hold for a provider, set it to None
    in the subclass, and say why beside it and in the provider's docs.
    """
