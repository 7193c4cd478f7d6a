//! Tests that no secret is shown in logs at `trace`, in bodies, metrics or panics, or in `Debug`
//! output. The logs include those of other libraries.

mod debug;
mod full_run;
mod search;
