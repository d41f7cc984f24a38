"""The traffic log, and the logs of other systems that become one."""
