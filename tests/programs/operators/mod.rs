//! Tests of the program `tower-wechat` on a real Redis that services use at the same time.

mod import;
mod migrate;
mod moves;
mod platform;
mod program;
mod reseal;
mod stored_times;
mod topologies;
mod users;
