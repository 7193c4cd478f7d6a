//! Reads freed memory of this process, to check that secrets in it were overwritten.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A secret of 512 bytes. The allocator of glibc keeps a freed block of this size for the same
/// thread, and overwrites only its first bytes.
pub(super) fn secret() -> Vec<u8> {
    b"secret! ".repeat(64)
}

/// Drops a value that owns memory at these addresses. Returns `true` if a part of a secret is left
/// in the memory.
pub(super) fn leaves_secret<T>(value: T, addresses: &[*const u8]) -> bool {
    let memory = File::open("/proc/self/mem").unwrap();
    // Allocated before the drop, because the allocator would return the freed memory.
    let mut bytes = vec![0; secret().len()];
    drop(value);
    addresses.iter().any(|address| {
        memory
            .read_exact_at(&mut bytes, address.addr() as u64)
            .unwrap();
        bytes.windows(8).any(|part| part == b"secret! ")
    })
}

#[test]
fn a_secret_that_is_not_wiped_is_found() {
    let value = secret();
    let address = value.as_ptr();
    assert!(leaves_secret(value, &[address]));
}
