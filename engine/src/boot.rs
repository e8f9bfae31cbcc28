//! From what lies on disk to what the cores start with: metadata first, then every partition that it
//! knows. Runs once, on the thread that starts the broker, before any shard; knows no ring, no socket.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;

use storage::batch;
use storage::disk::Disk;
use storage::records::RecordsScratch;
use storage::recovery::{self, CoreImage, Known, Recovered};
use storage::types::TopicId;
use storage::walk::output_bytes_max;

use crate::metadata::{METADATA_TOPIC, METADATA_TOPIC_ID, MetadataImage, MetadataRecord, core_of};

/// What the cores start with.
#[derive(Debug)]
pub struct Booted {
    /// The metadata, with this start counted: leader epochs rise with every start.
    pub image: MetadataImage,
    /// Each core's partitions.
    pub recovered: Recovered,
}

/// Why the broker cannot start.
#[derive(Debug)]
pub enum BootError {
    /// No log directory can be used, or the one with the metadata cannot.
    Offline(Vec<(PathBuf, String)>),
    /// There are partitions, and nothing that says what they are.
    MetadataMissing,
    /// The metadata cannot be read.
    Metadata(io::Error),
    /// A record of the metadata is not of a kind or version that this release knows.
    MetadataRecord(String),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Offline(dirs) => {
                f.write_str("the metadata lies in a log directory that cannot be used:")?;
                for (dir, why) in dirs {
                    write!(f, " {}: {why};", dir.display())?;
                }
                Ok(())
            }
            BootError::MetadataMissing => write!(
                f,
                "the log directories hold partitions but no {METADATA_TOPIC}-0: log.dirs must name \
                 all directories that were in use"
            ),
            BootError::Metadata(error) => write!(f, "{METADATA_TOPIC}-0 cannot be read: {error}"),
            BootError::MetadataRecord(why) => {
                write!(
                    f,
                    "{METADATA_TOPIC}-0 holds what this release does not know: {why}"
                )
            }
        }
    }
}

impl std::error::Error for BootError {}

/// Recovers everything. `image` is empty metadata of this broker.
///
/// # Errors
/// When the metadata cannot be had: without it nobody knows what the partitions are.
pub async fn boot<D: Disk>(
    disk: &D,
    dirs: &[PathBuf],
    cores: u16,
    mut image: MetadataImage,
) -> Result<Booted, BootError> {
    let scan = recovery::scan(disk, dirs).await;
    let mut deleted = BTreeSet::new();
    let found = scan
        .partitions()
        .any(|key| key.topic_id == METADATA_TOPIC_ID);
    if found {
        let batches = scan
            .read_partition(disk, METADATA_TOPIC_ID, 0)
            .await
            .map_err(BootError::Metadata)?;
        for batch in &batches {
            apply_batch(&mut image, &mut deleted, batch)?;
        }
    } else {
        let offline: Vec<(PathBuf, String)> = scan
            .offline()
            .map(|(index, why)| (dirs[index].clone(), why.to_owned()))
            .collect();
        if !offline.is_empty() {
            return Err(BootError::Offline(offline));
        }
        if scan.partitions().next().is_some() {
            return Err(BootError::MetadataMissing);
        }
    }
    let judge = |key: &storage::store::PartitionKey| {
        let exists = key.topic_id == METADATA_TOPIC_ID
            || image
                .topic_by_id(key.topic_id)
                .is_some_and(|topic| key.partition < topic.partition_count());
        match exists {
            true => Known::Yes,
            false if deleted.contains(&key.topic_id) => Known::Deleted,
            false => Known::No,
        }
    };
    let owner = |key: &storage::store::PartitionKey| {
        if key.topic_id == METADATA_TOPIC_ID {
            storage::types::CoreId(0)
        } else {
            core_of(&key.topic, key.partition, cores)
        }
    };
    let recovered = scan.finish(disk, cores, judge, owner).await;
    let kept = recovered
        .cores
        .iter()
        .flat_map(CoreImage::partitions)
        .any(|key| key.topic_id == METADATA_TOPIC_ID);
    if found && !kept {
        // Its directory failed after it was read. Made anew elsewhere, it would hide the old one for good.
        let offline = recovered.offline.into_iter();
        return Err(BootError::Offline(
            offline
                .map(|(index, why)| (dirs[index].clone(), why))
                .collect(),
        ));
    }
    let count = i32::try_from(recovered.epoch).unwrap_or(i32::MAX);
    image.apply(&MetadataRecord::Start { count });
    Ok(Booted { image, recovered })
}

fn apply_batch(
    image: &mut MetadataImage,
    deleted: &mut BTreeSet<TopicId>,
    bytes: &[u8],
) -> Result<(), BootError> {
    let corrupt = || BootError::Metadata(io::ErrorKind::InvalidData.into());
    let mut scratch = RecordsScratch::new();
    for batch in batch::split(bytes) {
        let batch = batch.map_err(|_| corrupt())?;
        let bound = output_bytes_max(batch.len_bytes());
        let records = scratch.records(&batch, bound).map_err(|_| corrupt())?;
        for record in records {
            let record = record.map_err(|_| corrupt())?;
            let key = record.key.ok_or_else(corrupt)?;
            let record = MetadataRecord::decode(key, record.value)
                .map_err(|error| BootError::MetadataRecord(error.to_string()))?;
            if let MetadataRecord::TopicDeleted { id } = &record {
                deleted.insert(*id);
            }
            image.apply(&record);
        }
    }
    Ok(())
}
