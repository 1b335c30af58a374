"""The optional parts of the daemon: each is built where its section is configured.

A part owns its tasks, its connections and its operations; ``agent.app`` runs them all
the same way.
"""
