//! Scripts: lists of steps on a repository. Any bytes can be read as a script, four bytes per step.

use icecore::store::{FaultEffect, InjectedError, KeyKind, StoreOperation};

use crate::cut::Last;

/// Bytes per step.
pub const STEP_BYTES: usize = 4;

/// An encoded step, as it is drawn, stored and shortened.
pub type Raw = [u8; STEP_BYTES];

/// A disturbance of a running operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    None,
    /// The machine stops at a write.
    Crash {
        writes: u64,
        last: Last,
    },
    /// Real time passes before a call; the lease is lost if it is long.
    Sleep {
        call: u64,
        seconds: i64,
    },
    /// The other host runs an operation before a call.
    Meanwhile {
        call: u64,
        deed: Deed,
    },
    /// One call fails or returns wrong data.
    Fault {
        operation: StoreOperation,
        kind: Option<KeyKind>,
        nth: u32,
        effect: FaultEffect,
    },
}

/// An operation of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Backup,
    Prune,
    PruneNow,
    /// The argument is an index into the existing snapshots.
    Forget(u8),
    Undelete(u8),
    /// Sets a tag in place of the existing ones.
    Tag(u8),
    RepairIndex,
    RepairPacks,
    AddKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Edit {
        host: usize,
        seed: u16,
    },
    Do {
        host: usize,
        deed: Deed,
        mishap: Mishap,
    },
    /// Time passes, in seconds.
    Advance(i64),
    /// Sets the store's clock this many seconds ahead of real time.
    Jump(i64),
    IndexLost {
        host: usize,
    },
    IndexKept {
        host: usize,
    },
    IndexPutBack {
        host: usize,
    },
    /// Reads a snapshot with a host's cache.
    Read {
        host: usize,
        which: u8,
    },
}

impl Step {
    /// Decodes a step; every four bytes are one.
    pub fn decode([kind, a, b, c]: Raw) -> Self {
        let host = usize::from(a & 1);
        let deed = |deed, mishap| Self::Do { host, deed, mishap };

        match kind % 40 {
            0..=7 => Self::Edit {
                host,
                seed: u16::from_le_bytes([b, c]),
            },
            8..=14 => deed(Deed::Backup, Mishap::None),
            15..=18 => deed(Deed::Backup, mishap(a, b, c)),
            19..=20 => deed(Deed::Forget(b), Mishap::None),
            21 => deed(Deed::Forget(b), mishap(a, b, c)),
            22 => deed(
                Deed::Undelete(b),
                if a & 2 == 0 {
                    Mishap::None
                } else {
                    mishap(a, b, c)
                },
            ),
            23..=26 => deed(Deed::Prune, Mishap::None),
            27..=29 => deed(Deed::Prune, mishap(a, b, c)),
            30 => deed(
                Deed::PruneNow,
                if a & 2 == 0 {
                    Mishap::None
                } else {
                    mishap(a, b, c)
                },
            ),
            31..=33 => Self::Advance(
                [600, 3600, 7200, 6 * 3600, 25 * 3600, 25 * 3600, 8 * 86400][usize::from(b % 7)],
            ),
            34 => Self::Jump([0, 1800, 900, 300][usize::from(b % 4)]),
            35 => Self::IndexLost { host },
            36 => Self::IndexKept { host },
            37 => Self::IndexPutBack { host },
            38 => deed(
                match b % 8 {
                    0 => Deed::RepairIndex,
                    1 => Deed::RepairPacks,
                    2 | 3 => Deed::AddKey,
                    _ => Deed::Tag(c),
                },
                if a & 2 == 0 {
                    Mishap::None
                } else {
                    mishap(a, b, c)
                },
            ),
            _ => Self::Read { host, which: b },
        }
    }
}

fn mishap(a: u8, b: u8, c: u8) -> Mishap {
    match (a >> 2) % 8 {
        0..=2 => Mishap::Crash {
            writes: u64::from(b % 12),
            last: if c & 1 == 0 { Last::Lost } else { Last::Landed },
        },
        3 => Mishap::Sleep {
            call: u64::from(b % 48),
            seconds: [60, 29 * 60, 31 * 60, 3 * 3600, 30 * 3600][usize::from(c % 5)],
        },
        4 | 5 => {
            let deeds = [
                Deed::Backup,
                Deed::Backup,
                Deed::Prune,
                Deed::Prune,
                Deed::PruneNow,
                Deed::Forget(b),
                Deed::Undelete(b),
            ];
            Mishap::Meanwhile {
                call: u64::from(b % 48),
                deed: deeds[usize::from(c) % deeds.len()],
            }
        }
        _ => fault(b, c),
    }
}

fn fault(b: u8, c: u8) -> Mishap {
    let operations = [
        StoreOperation::Put,
        StoreOperation::Put,
        StoreOperation::Put,
        StoreOperation::Get,
        StoreOperation::ReadAt,
        StoreOperation::Stat,
        StoreOperation::List,
        StoreOperation::Delete,
    ];
    let kinds = [
        None,
        Some(KeyKind::Pack),
        Some(KeyKind::Segment),
        Some(KeyKind::Snapshot),
        Some(KeyKind::Lease),
        Some(KeyKind::Forgotten),
    ];

    let operation = operations[usize::from(b % 8)];
    let effects = [
        FaultEffect::ErrorBefore(InjectedError::Io),
        FaultEffect::ErrorAfter(InjectedError::Unreachable),
        FaultEffect::ErrorBefore(InjectedError::Full),
        FaultEffect::ErrorAfter(InjectedError::Io),
        // Only on reads: the damage matrix covers a store that damages stored objects.
        if operation == StoreOperation::Put {
            FaultEffect::ErrorBefore(InjectedError::Denied)
        } else {
            FaultEffect::Corrupt(u64::from(c))
        },
        if operation == StoreOperation::Put {
            FaultEffect::ErrorAfter(InjectedError::Full)
        } else {
            FaultEffect::Torn(u64::from(c))
        },
    ];

    Mishap::Fault {
        operation,
        kind: kinds[usize::from(b / 8) % kinds.len()],
        nth: 1 + u32::from(c % 4),
        effect: effects[usize::from(c / 4) % effects.len()],
    }
}

/// Reads any bytes as a script; a remainder of fewer than four bytes is ignored.
pub fn from_bytes(bytes: &[u8]) -> Vec<Raw> {
    bytes
        .chunks_exact(STEP_BYTES)
        .map(|raw| raw.try_into().expect("four bytes"))
        .collect()
}
