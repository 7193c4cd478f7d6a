//! The program `tower-wechat`, as a process, on a real Redis with real services beside it.

mod migrate;
mod moves;
mod program;
mod reseal;
mod stored_times;
mod topologies;
mod users;
