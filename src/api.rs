//! The nouns: every object, label and wire message, nothing but data.
