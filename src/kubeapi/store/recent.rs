//! The trees of the objects that were written last. Whoever writes an object reads it first, and what
//! is written now is most often what was written a moment ago: a status, a Lease.

use super::Stored;
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc};

/// How many objects keep their trees: the objects of the peers of one cluster, and as many others.
const MOST_OBJECTS: usize = 256;

/// How many bytes of JSON they are together. A tree takes some five times as much.
const MOST_BYTES: usize = 512 * 1_024;

/// The objects that keep their trees, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    objects: VecDeque<Arc<Stored>>,
    bytes: usize,
}

impl Recent {
    /// Adds an object; returns the trees for which there is no more room.
    pub(super) fn push(&mut self, object: &Arc<Stored>) -> Vec<Arc<Value>> {
        self.bytes += object.size();
        self.objects.push_back(Arc::clone(object));
        let mut idle = Vec::new();
        while self.objects.len() > MOST_OBJECTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.objects.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
            idle.extend(oldest.take_tree());
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::store::Operation;
    use serde_json::json;

    fn stored(revision: u64, text: &str) -> Arc<Stored> {
        let object = json!({"data": text});
        Arc::new(Stored::new(revision, Operation::Added, object))
    }

    #[test]
    fn only_so_many_objects_keep_their_trees() {
        let mut recent = Recent::default();
        let objects: Vec<Arc<Stored>> = (0..=MOST_OBJECTS as u64).map(|n| stored(n, "x")).collect();
        let freed = objects
            .iter()
            .flat_map(|object| recent.push(object))
            .count();
        assert_eq!(freed, 1);
        assert!(objects[0].take_tree().is_none(), "the oldest has none");
        assert_eq!(*objects[0].tree(), json!({"data": "x"}), "it is read again");
        assert!(objects[1].take_tree().is_some());
    }

    #[test]
    fn large_objects_leave_room_for_fewer() {
        let mut recent = Recent::default();
        let half = "x".repeat(MOST_BYTES / 2);
        let objects = [stored(1, &half), stored(2, &half), stored(3, &half)];
        for object in &objects {
            recent.push(object);
        }
        let kept = objects.iter().filter_map(|object| object.take_tree());
        assert_eq!(kept.count(), 1);
    }
}
