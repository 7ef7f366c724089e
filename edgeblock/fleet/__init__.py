"""What many boxes need: lists fetched from systems that exist, a repository of an operator's own, exports.

In: other people's servers, an operator's directory. Out: files in the drop directory, or for another plane. These are
programs of their own, with users and units of their own. Never here: the daemon, which imports nothing of this.
"""
