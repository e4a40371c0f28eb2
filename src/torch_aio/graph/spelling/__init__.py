"""How each door spells an operator, and the one spelling that the passes read.

One file per kind of operator, each with a literal table ``RULES``: overload -> rewrite rule.
"""
