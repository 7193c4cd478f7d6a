//! The demo lives through all that it can, its log at `trace`, and no secret shows anywhere: not
//! in logs, ours or other libraries', not in bodies, metrics, panics or `Debug` output.

mod debug;
mod life;
mod search;
