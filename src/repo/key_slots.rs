//! The key slots of an open repository: list, add, remove, change, export and repair.

use super::keyring::{make_slot, mend, read_slot, slot_names, store_slot};
use super::room::SpareRoom;
use super::{RepoError, Repository, Secret, SlotInfo};
use crate::advice::{AccessAdvice, Advice};
use crate::format::{KeySlot, encode_key_slot};
use crate::store::{ObjectBody, ObjectKey, PutMode, Replica, StoreError};

impl Repository {
    /// Returns all key slots, sorted by name.
    pub fn key_slots(&self) -> Result<Vec<SlotInfo>, RepoError> {
        let mut out = Vec::new();
        for name in slot_names(self.store())? {
            let (slot, mut damage) = read_slot(self.store(), &name);
            if let Some(slot) = slot.as_ref().filter(|slot| !self.is_ours(slot)) {
                let what = if slot.repository == self.id() {
                    "it holds the key of another repository".to_owned()
                } else {
                    format!("it belongs to repository {}", slot.repository)
                };
                damage = damage.or(Some(what));
            }
            let (label, created) =
                slot.map_or_else(Default::default, |slot| (slot.label, slot.created));
            out.push(SlotInfo {
                current: name == self.slot,
                name,
                label,
                created,
                damage,
            });
        }
        Ok(out)
    }

    /// Adds a key slot; returns its name.
    pub fn add_key(&self, secret: &Secret, label: &str) -> Result<String, RepoError> {
        self.check_writable()?;
        let _room = SpareRoom::new(&self.shared_store());
        store_slot(
            self.store(),
            &make_slot(&self.master, self.id(), secret, label)?,
        )
    }

    /// Removes the key slot with this unambiguous prefix of a name, but never the last undamaged
    /// one. Returns its name.
    pub fn remove_key(&self, prefix: &str) -> Result<String, RepoError> {
        self.check_writable()?;
        let _room = SpareRoom::new(&self.shared_store());
        let slots = self.key_slots()?;
        let mut found = slots.iter().filter(|slot| slot.name.starts_with(prefix));
        let (Some(slot), None) = (found.next(), found.next()) else {
            return Err(RepoError::Refused {
                why: format!("'{prefix}' does not match exactly one key slot"),
                advice: Some(Advice::Access(AccessAdvice::ListKeySlots)),
            });
        };
        let mut others = slots.iter().filter(|other| other.name != slot.name);
        if !others.any(|other| other.damage.is_none()) {
            return Err(RepoError::refused(
                "the last intact key slot is never removed",
            ));
        }
        self.delete_slot(&slot.name)?;
        Ok(slot.name.clone())
    }

    /// Replaces the slot that opened the repository. The new slot is stored and read back before
    /// the old one is deleted. Returns the new slot's name.
    pub fn change_key(&self, secret: &Secret, label: &str) -> Result<String, RepoError> {
        let _room = SpareRoom::new(&self.shared_store());
        let name = self.add_key(secret, label)?;
        self.delete_slot(&self.slot)?;
        Ok(name)
    }

    /// Returns the bytes of a new slot for the master key, to be kept outside the repository. With
    /// these bytes and their secret the repository opens even if all its slots are lost.
    pub fn export_key(&self, secret: &Secret, label: &str) -> Result<Vec<u8>, RepoError> {
        let slot = make_slot(&self.master, self.id(), secret, label)?;
        Ok(encode_key_slot(&slot))
    }

    /// Returns true if the slot claims to hold this repository's key.
    fn is_ours(&self, slot: &KeySlot) -> bool {
        slot.repository == self.id() && slot.check == self.master.check_value()
    }

    /// Deletes a slot, but puts it back if no undamaged slot is left, because another process may
    /// have removed the others since they were listed. Of two such processes, the one that lists
    /// last puts its slot back, so at least one slot remains.
    fn delete_slot(&self, name: &str) -> Result<(), RepoError> {
        let copies =
            [Replica::First, Replica::Second].map(|copy| ObjectKey::KeySlot(name.to_owned(), copy));
        let slot = read_slot(self.store(), name)
            .0
            .filter(|slot| self.is_ours(slot));

        for key in &copies {
            match self.store().delete(key) {
                Err(err) if !err.is_not_found() => return Err(err.into()),
                _ => {}
            }
        }

        let left = self
            .key_slots()
            .map(|slots| slots.iter().any(|slot| slot.damage.is_none()));
        let (Ok(false) | Err(_), Some(slot)) = (&left, slot) else {
            return left.map(drop);
        };

        let bytes = encode_key_slot(&slot);
        for key in copies.iter().rev() {
            match self
                .store()
                .put(key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            {
                Ok(()) | Err(StoreError::Exists { .. }) => {}
                Err(err) => return Err(err.into()),
            }
        }

        left?;
        let why =
            format!("the other key slots were removed at the same time: slot {name} was put back");
        Err(RepoError::refused(why))
    }

    /// Restores damaged or missing copies of `config` and of key slots from their twins. Returns
    /// the names of the objects that it wrote.
    pub fn repair_config(&self) -> Result<Vec<String>, RepoError> {
        self.check_writable()?;
        let _room = SpareRoom::new(&self.shared_store());
        mend(
            self.store(),
            &self.config_bytes,
            &(self.slot.clone(), self.slot_copy),
        )
    }
}
