//! Settings: defaults, file, environment and flags, with the origin of each.
