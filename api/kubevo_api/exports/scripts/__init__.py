"""The parts of the script that plays a model; `kubevo_api.exports.policy_script` puts them together.

They are modules so that they are checked like all other code, and they import nothing of kubevo but
each other: what is between a part's markers becomes a file that needs numpy and the game alone.
"""

__all__: list[str] = []
