//! Suites over the seams of the workspace: see `tests/`. The library is empty; cargo wants a target to hang them on.
