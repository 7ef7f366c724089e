"""Hypothesis without a deadline: what a look-up may cost is tested by processor time, not by a busy clock."""

from hypothesis import settings

CURRENT = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("blocklist", parent=CURRENT, deadline=None)
settings.load_profile("blocklist")
