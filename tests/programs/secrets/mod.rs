//! Tests that no secret is shown: not in logs at `trace`, by this crate or other libraries, not in
//! bodies, metrics, panics or `Debug` output.

mod debug;
mod full_run;
mod search;
