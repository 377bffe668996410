//! The corridors: read objects, ask the engine, carry out its answer.
