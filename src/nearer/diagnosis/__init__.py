"""Why a query failed: probes that execute repairs, evidence, and the rule from both to a cause."""
