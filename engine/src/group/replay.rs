//! Replay: what one record of the offsets topic does to the groups of its partition. The same function
//! serves the load of a partition and every decision that is made of records.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::classic::Group;
use super::offsets::CommittedOffset;
use super::records::{self, Key, RecordError};

/// Takes one record into the groups of a partition.
pub(crate) fn apply(
    groups: &mut BTreeMap<Rc<str>, Group>,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), RecordError> {
    match (records::decode_key(key)?, value) {
        (
            Key::OffsetCommit {
                group,
                topic,
                partition,
            },
            Some(value),
        ) => {
            let (_, value) = records::decode_offset_commit_value(value)?;
            let id: Rc<str> = group.into();
            groups
                .entry(id)
                .or_insert_with_key(|id| Group::new(id.clone(), value.commit_timestamp_ms))
                .apply_offset(&topic, partition, Some(CommittedOffset::from(value)));
        }
        (
            Key::OffsetCommit {
                group,
                topic,
                partition,
            },
            None,
        ) => {
            if let Some(group) = groups.get_mut(group.as_str()) {
                group.apply_offset(&topic, partition, None);
            }
        }
        (Key::GroupMetadata { group }, Some(value)) => {
            let (_, value) = records::decode_group_metadata_value(value)?;
            let id: Rc<str> = group.into();
            groups
                .entry(id)
                .or_insert_with_key(|id| Group::new(id.clone(), -1))
                .apply_metadata(value);
        }
        (Key::GroupMetadata { group }, None) => {
            if let Some(known) = groups.get_mut(group.as_str())
                && known.apply_tombstone()
            {
                groups.remove(group.as_str());
            }
        }
        (Key::Unknown(_), _) => {}
    }
    Ok(())
}
