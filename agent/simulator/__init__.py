"""Virtual charging stations and vehicles, the independent judge of the agent.

Shares no code with the agent and must import nothing from it.
"""
