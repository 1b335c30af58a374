-- Small facts that must outlive a restart: call budgets, tokens' generations, what was
-- learned of a car, what the agent changed there. One row per scope and name.

CREATE TABLE facts (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT;
