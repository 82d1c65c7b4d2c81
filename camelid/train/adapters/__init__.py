"""Adapters that learn beside a frozen base."""
