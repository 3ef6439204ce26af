"""From a configuration to finished nodes: plan, jobs, processes."""
