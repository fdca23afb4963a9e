"""What a plugin imports to become a provider or an observer of mbframework."""

from mbframework.plugins.hookspecs import hookimpl, hookspec
from mbframework.plugins.options import option
from mbframework.plugins.registry import ProviderType
from mbframework.provider import API_VERSION

__all__ = ["API_VERSION", "ProviderType", "hookimpl", "hookspec", "option"]
