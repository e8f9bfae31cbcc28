//! Recovery: what checkpoints and journals of all earlier starts say the logs hold. Runs once, before
//! the shards, on one thread, over any [`Disk`]; knows no topic metadata, but lets the caller read one
//! partition (the metadata's own) before it must say which partitions are known.
//!
//! Nothing here scans segments for batches: lengths come from checkpoint plus journal. Nothing is
//! written over segments either: what a journal holds comes back as dirty memory of its log.

mod chain;
mod image;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::buf::BLOCK_BYTES;
use xxhash_rust::xxh3::Xxh3;

use crate::batch::BatchView;
use crate::checkpoint::{self, PartitionRecord};
use crate::disk::{Disk, OpenMode};
use crate::journal;
use crate::reference::Reference;
use crate::segment::{block_floor, path};
use crate::store::{Deletion, PartitionKey};
use crate::tasks::{partition_metadata, read_file, write_file};
use crate::types::{CoreId, Offset, PartitionIndex, TopicId};

use chain::Chain;
use image::{Builder, Building};

/// A batch that is in a journal and not, or not safely, in its segment.
#[derive(Clone, Debug)]
pub(crate) struct DirtyImage {
    pub segment_base: Offset,
    pub position: u64,
    pub base_offset: Offset,
    pub offset_end: Offset,
    /// How many of its first bytes lie in the segment: a straight write ended within it.
    pub in_segment: u64,
    /// The journal write that holds the rest, and where.
    pub write: Arc<Vec<u8>>,
    pub range: std::ops::Range<usize>,
}

impl DirtyImage {
    fn position_end(&self) -> u64 {
        self.position + self.in_segment + self.range.len() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.write[self.range.clone()]
    }
}

/// What recovery found of one partition.
#[derive(Debug)]
pub(crate) struct PartitionImage {
    pub record: PartitionRecord,
    pub dirty: Vec<DirtyImage>,
    /// The head of the active segment's tail block, where the block may be half rewritten.
    pub head: Option<Vec<u8>>,
    /// Bases of segments that the log start has passed and whose files are still there.
    pub dropped: Vec<Offset>,
}

/// What recovery found for one core in one log directory.
#[derive(Debug, Default)]
pub(crate) struct DirImage {
    pub offline: Option<String>,
    pub deletions: Vec<Deletion>,
    pub partitions: Vec<PartitionImage>,
}

/// What recovery found for one core; goes to that core's thread.
#[derive(Debug)]
pub struct CoreImage {
    /// The core.
    pub core: CoreId,
    /// Whether the last run did not end with a settled store: leader epochs must rise.
    pub unclean: bool,
    pub(crate) dirs: Vec<DirImage>,
}

impl CoreImage {
    /// The partitions of this core.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionKey> {
        self.dirs
            .iter()
            .flat_map(|dir| &dir.partitions)
            .map(|partition| &partition.record.key)
    }

    /// Bytes that come back from journals into memory.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirs
            .iter()
            .flat_map(|dir| &dir.partitions)
            .flat_map(|partition| &partition.dirty)
            .map(|dirty| dirty.range.len() as u64)
            .sum()
    }

    /// Bytes that the new journal in one log directory, by index, must take over before the core serves.
    pub fn carried_bytes(&self, dir: usize) -> u64 {
        let partitions = self.dirs[dir].partitions.iter();
        partitions
            .map(|partition| {
                let dirty: usize = partition.dirty.iter().map(|dirty| dirty.range.len()).sum();
                (dirty + partition.head.as_ref().map_or(0, |head| head.len())) as u64
            })
            .sum()
    }
}

/// Everything that recovery gives out.
#[derive(Debug)]
pub struct Recovered {
    /// The durable epoch of this start.
    pub epoch: u64,
    /// One image per core.
    pub cores: Vec<CoreImage>,
    /// Whether the last run did not end with a settled store.
    pub unclean: bool,
    /// Directories that nobody knows, as they were named and as they are set aside now.
    pub strays: Vec<(PathBuf, PathBuf)>,
    /// Log directories that are offline, by index, and why.
    pub offline: Vec<(usize, String)>,
    /// Bytes that came back from journals.
    pub dirty_bytes: u64,
}

/// What the metadata say of a partition that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It exists.
    Yes,
    /// It was deleted, and a crash came before its files were: they are removed.
    Deleted,
    /// Nothing: its directory is set aside.
    No,
}

/// The first step of recovery: everything is read, nothing is judged.
pub struct Scan {
    dirs: Vec<PathBuf>,
    offline: Vec<Option<String>>,
    partitions: BTreeMap<(TopicId, PartitionIndex), Building>,
    deletions: Vec<Vec<Deletion>>,
    deleted: Vec<image::Deleted>,
    epoch_max: u64,
    unclean: bool,
}

/// Reads checkpoints and journals of all earlier starts. A directory that cannot be read, or whose
/// journal lost acknowledged writes, is offline in the result, with the reason.
pub async fn scan<D: Disk>(disk: &D, dirs: &[PathBuf]) -> Scan {
    let mut scan = Scan {
        dirs: dirs.to_vec(),
        offline: vec![None; dirs.len()],
        partitions: BTreeMap::new(),
        deletions: vec![Vec::new(); dirs.len()],
        deleted: Vec::new(),
        epoch_max: 0,
        unclean: false,
    };
    let mut builder = Builder::default();
    let mut chains = Vec::new();
    for (index, dir) in dirs.iter().enumerate() {
        match scan_dir(disk, index, dir, &mut scan, &mut builder).await {
            Ok(found) => chains.extend(found),
            Err(why) => scan.offline[index] = Some(why),
        }
    }
    // Entries of all cores merge by start epoch; within one start a partition has one core.
    chains.sort_by_key(|chain: &Chain| (chain.epoch, chain.core, chain.dir));
    for chain in &chains {
        if scan.offline[chain.dir].is_none()
            && let Err(why) = builder.replay(disk, &dirs[chain.dir], chain).await
        {
            scan.offline[chain.dir] = Some(why);
        }
    }
    drop(chains);
    scan.deleted = std::mem::take(&mut builder.deleted);
    for (key, mut building) in builder.partitions {
        let dir = building.dir;
        if scan.offline[dir].is_some() {
            continue;
        }
        let done = match building.finish() {
            Ok(()) => match finish_replacements(disk, &dirs[dir], &mut building).await {
                Ok(()) => {
                    // Journals of earlier starts may still hold a partition that was deleted since: what
                    // is missing counts only if the partition is known.
                    building.lacks = fill_from_segment(disk, &dirs[dir], &mut building)
                        .await
                        .err();
                    Ok(())
                }
                Err(error) => Err(format!(
                    "compacted segments cannot be put in place: {error}"
                )),
            },
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => {
                scan.partitions.insert(key, building);
            }
            Err(why) => scan.offline[dir] = Some(why),
        }
    }
    let offline = &scan.offline;
    scan.partitions
        .retain(|_, building| offline[building.dir].is_none());
    scan
}

async fn scan_dir<D: Disk>(
    disk: &D,
    index: usize,
    dir: &Path,
    scan: &mut Scan,
    builder: &mut Builder,
) -> Result<Vec<Chain>, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let journal_dir = journal::journal_dir(dir);
    let checkpoint_dir = checkpoint::checkpoint_dir(dir);
    for made in [&journal_dir, &checkpoint_dir] {
        disk.create_dir_all(made)
            .await
            .map_err(told("the log directory cannot be made"))?;
    }
    for parent in [
        Some(dir.join(".millrace")),
        Some(dir.to_path_buf()),
        dir.parent().map(Path::to_path_buf),
    ]
    .into_iter()
    .flatten()
    .filter(|parent| !parent.as_os_str().is_empty())
    {
        disk.sync_dir(&parent)
            .await
            .map_err(told("the log directory cannot be flushed"))?;
    }
    if let Some(epoch) = read_number(disk, &epoch_path(dir)).await? {
        scan.epoch_max = scan.epoch_max.max(epoch);
    }
    let complete = read_number(disk, &complete_path(dir)).await?.unwrap_or(0);
    let mut heads = BTreeMap::new();
    let names = disk
        .list_dir(&checkpoint_dir)
        .await
        .map_err(told("checkpoints cannot be listed"))?;
    for (epoch, core) in names
        .iter()
        .filter_map(|entry| checkpoint::parse_checkpoint_name(&entry.name))
    {
        scan.epoch_max = scan.epoch_max.max(epoch);
        if epoch < complete {
            continue;
        }
        let path = checkpoint::checkpoint_path(dir, epoch, core);
        let bytes = read_file(disk, &path, checkpoint::CHECKPOINT_BYTES_MAX)
            .await
            .map_err(told("a checkpoint cannot be read"))?;
        let found = checkpoint::decode(&bytes)
            .filter(|found| (found.head.epoch, found.head.core) == (epoch, core))
            .ok_or_else(|| format!("the checkpoint {} is damaged", path.display()))?;
        heads.insert((epoch, core), found.head);
        for deletion in found.deletions {
            if !scan.deletions[index].contains(&deletion) {
                scan.deletions[index].push(deletion);
            }
        }
        builder.add_checkpoint(index, &found.head, found.partitions);
    }
    let mut files: BTreeMap<(u64, CoreId), Vec<PathBuf>> = BTreeMap::new();
    let names = disk
        .list_dir(&journal_dir)
        .await
        .map_err(told("journals cannot be listed"))?;
    for entry in names {
        if let Some((epoch, core)) = journal::parse_journal_file_name(&entry.name) {
            scan.epoch_max = scan.epoch_max.max(epoch);
            if epoch >= complete {
                files
                    .entry((epoch, core))
                    .or_default()
                    .push(journal_dir.join(&entry.name));
            }
        }
    }
    // A process that was killed leaves writes and names that were never flushed. What is read below
    // decides about files: a power cut must not take the reason back once that is done.
    let unflushed = told("a journal cannot be flushed");
    for path in files.values().flatten() {
        let file = disk
            .open(path, OpenMode::ReadWrite)
            .await
            .map_err(unflushed)?;
        disk.sync_data(&file).await.map_err(unflushed)?;
    }
    for synced in [&journal_dir, &checkpoint_dir] {
        disk.sync_dir(synced).await.map_err(unflushed)?;
    }
    let mut chains = Vec::new();
    for ((epoch, core), paths) in files {
        let head = heads.get(&(epoch, core)).copied();
        if head.is_some_and(|head| head.clean) {
            continue;
        }
        scan.unclean = true;
        chains.push(chain::read(disk, index, epoch, core, &paths, head).await?);
    }
    Ok(chains)
}

/// Reads a file that holds one number; `None` if it is not there.
async fn read_number<D: Disk>(disk: &D, path: &Path) -> Result<Option<u64>, String> {
    match read_file(disk, path, 4096).await {
        Ok(bytes) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map(Some)
            .ok_or_else(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Holds the newest start epoch that was allocated.
fn epoch_path(dir: &Path) -> PathBuf {
    dir.join(".millrace").join("epoch")
}

/// Holds the newest start epoch whose own journals and checkpoints say everything: those of earlier
/// starts count no longer, however many of them are still there.
fn complete_path(dir: &Path) -> PathBuf {
    dir.join(".millrace").join("complete")
}

/// Renames compacted segments into place where a crash came between their journal entry and that.
async fn finish_replacements<D: Disk>(
    disk: &D,
    dir: &Path,
    building: &mut Building,
) -> io::Result<()> {
    if building.record.replacements.is_empty() {
        return Ok(());
    }
    let partition_dir = dir.join(building.record.key.dir_name());
    // Where the partition was deleted since, the name may be that of another.
    if names_topic(disk, &partition_dir, building.record.key.topic_id).await? == Some(false) {
        return Ok(());
    }
    for replacement in std::mem::take(&mut building.record.replacements) {
        for step in crate::clean_task::swap_work(&partition_dir, &replacement) {
            crate::tasks::move_files(disk, &[step]).await?;
        }
    }
    Ok(())
}

/// Batches of which the journal has only the end get their beginning from the segment.
async fn fill_from_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    building: &mut Building,
) -> Result<(), String> {
    let dir = dir.join(building.record.key.dir_name());
    let told = |error: io::Error| format!("{} cannot be read: {error}", dir.display());
    for dirty in building.dirty.iter_mut().filter(|d| d.in_segment > 0) {
        let path = path(&dir, dirty.segment_base, "log");
        let file = disk.open(&path, OpenMode::Read).await.map_err(told)?;
        let mut bytes = read_range(disk, &file, dirty.position, dirty.in_segment)
            .await
            .map_err(told)?;
        bytes.extend_from_slice(dirty.bytes());
        let whole = BatchView::new(&bytes).is_ok_and(|batch| batch.verify_crc().is_ok());
        if !whole {
            return Err(format!(
                "{} holds a corrupt batch at {}",
                path.display(),
                dirty.position
            ));
        }
        dirty.in_segment = 0;
        dirty.range = 0..bytes.len();
        dirty.write = Arc::new(bytes);
    }
    Ok(())
}

impl Scan {
    /// All partitions found.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionKey> {
        self.partitions
            .values()
            .map(|building| &building.record.key)
    }

    /// Log directories that are offline, by index, and why.
    pub fn offline(&self) -> impl Iterator<Item = (usize, &str)> {
        self.offline
            .iter()
            .enumerate()
            .filter_map(|(index, why)| Some((index, why.as_deref()?)))
    }

    /// Reads all batches of one partition, from its log start on, checksums verified.
    ///
    /// # Errors
    /// If the partition is not there, its files cannot be read, or a batch is corrupt.
    pub async fn read_partition<D: Disk>(
        &self,
        disk: &D,
        topic_id: TopicId,
        partition: PartitionIndex,
    ) -> io::Result<Vec<Vec<u8>>> {
        let building = self
            .partitions
            .get(&(topic_id, partition))
            .ok_or(io::ErrorKind::NotFound)?;
        if let Some(why) = &building.lacks {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why.clone()));
        }
        let dir = self.dirs[building.dir].join(building.record.key.dir_name());
        let mut batches = Vec::new();
        for segment in &building.record.segments {
            let first_dirty = building
                .dirty
                .iter()
                .find(|dirty| dirty.segment_base == segment.base)
                .map_or(segment.length_bytes, |dirty| dirty.position);
            let mut bytes = Vec::new();
            if first_dirty > 0 {
                bytes = read_start(disk, &path(&dir, segment.base, "log"), first_dirty).await?;
                if let Some(head) = &building.head
                    && !segment.closed
                {
                    let at = block_floor(segment.synced_bytes) as usize;
                    let stop = bytes.len().min(at + head.len());
                    bytes[at..stop].copy_from_slice(&head[..stop - at]);
                }
            }
            for dirty in &building.dirty {
                if dirty.segment_base == segment.base {
                    bytes.extend_from_slice(dirty.bytes());
                }
            }
            for batch in crate::batch::split(&bytes) {
                let batch = batch.map_err(|_| corrupt(&dir))?;
                batch.verify_crc().map_err(|_| corrupt(&dir))?;
                if batch.header().offset_end() > building.record.log_start {
                    batches.push(BatchView::bytes(&batch).to_vec());
                }
            }
        }
        Ok(batches)
    }

    /// The second step: judges partitions by `judge`, allocates the durable epoch of this start, sets
    /// aside directories that nobody knows, and divides the rest among `cores` by `owner_of`.
    pub async fn finish<D: Disk>(
        mut self,
        disk: &D,
        cores: u16,
        judge: impl Fn(&PartitionKey) -> Known,
        owner_of: impl Fn(&PartitionKey) -> CoreId,
    ) -> Recovered {
        let epoch = self.epoch_max + 1;
        for (index, dir) in self.dirs.iter().enumerate() {
            if self.offline[index].is_none()
                && let Err(error) =
                    write_file(disk, &epoch_path(dir), format!("{epoch}\n").as_bytes()).await
            {
                self.offline[index] = Some(format!("the start epoch cannot be written: {error}"));
            }
        }
        let deleted = &mut self.deleted;
        self.partitions.retain(|_, building| {
            let key = &building.record.key;
            let known = judge(key);
            if known == Known::Deleted {
                deleted.push(image::Deleted {
                    dir: building.dir,
                    name: key.dir_name(),
                    topic_id: key.topic_id,
                    due_ms: 0,
                });
            }
            known == Known::Yes
        });
        for building in self.partitions.values_mut() {
            if let Some(why) = building.lacks.take() {
                self.offline[building.dir].get_or_insert(why);
            }
        }
        let mut strays = Vec::new();
        for index in 0..self.dirs.len() {
            if self.offline[index].is_none()
                && let Err(error) = self.tidy_dir(disk, index, epoch, &mut strays).await
            {
                self.offline[index] = Some(format!("the log directory cannot be read: {error}"));
            }
        }
        let unclean = self.unclean;
        let mut images: Vec<CoreImage> = (0..cores)
            .map(|core| CoreImage {
                core: CoreId(core),
                unclean,
                dirs: self
                    .offline
                    .iter()
                    .map(|offline| DirImage {
                        offline: offline.clone(),
                        ..DirImage::default()
                    })
                    .collect(),
            })
            .collect();
        // Files that are to go need one core to remove them; any will do.
        for (dir, deletions) in self.deletions.into_iter().enumerate() {
            images[0].dirs[dir].deletions = deletions;
        }
        let offline = &self.offline;
        for (_, building) in self.partitions {
            if offline[building.dir].is_some() {
                continue;
            }
            let owner = owner_of(&building.record.key);
            images[usize::from(owner.0)].dirs[building.dir]
                .partitions
                .push(PartitionImage {
                    record: building.record,
                    dirty: building.dirty,
                    head: building.head,
                    dropped: building.dropped,
                });
        }
        Recovered {
            epoch,
            unclean,
            dirty_bytes: images.iter().map(CoreImage::dirty_bytes).sum(),
            cores: images,
            strays,
            offline: self
                .offline
                .into_iter()
                .enumerate()
                .filter_map(|(index, why)| Some((index, why?)))
                .collect(),
        }
    }

    /// Finishes deletions and sets strays aside in one log directory.
    async fn tidy_dir<D: Disk>(
        &mut self,
        disk: &D,
        index: usize,
        epoch: u64,
        strays: &mut Vec<(PathBuf, PathBuf)>,
    ) -> io::Result<()> {
        let dir = self.dirs[index].clone();
        let kept: HashSet<String> = self
            .partitions
            .values()
            .filter(|building| building.dir == index)
            .map(|building| building.record.key.dir_name())
            .collect();
        let mut renamed = false;
        for entry in disk.list_dir(&dir).await? {
            let name = entry.name;
            if !entry.is_dir || name.starts_with('.') || name.ends_with("-stray") {
                continue;
            }
            if name.ends_with("-delete") {
                if !self.deletions[index].iter().any(|d| d.path == name) {
                    self.deletions[index].push(Deletion {
                        path: name,
                        is_dir: true,
                        due_ms: 0,
                    });
                }
                continue;
            }
            let namesakes = self
                .deleted
                .iter()
                .filter(|deleted| deleted.dir == index && deleted.name == name);
            let mut gone = None;
            for deleted in namesakes {
                if names_topic(disk, &dir.join(&name), deleted.topic_id).await? == Some(true) {
                    gone = Some(deleted);
                    break;
                }
            }
            let to = if let Some(gone) = gone {
                let to = crate::store::deleted_dir_name(&gone.topic_id, &name);
                self.deletions[index].push(Deletion {
                    path: to.clone(),
                    is_dir: true,
                    due_ms: gone.due_ms,
                });
                to
            } else if kept.contains(&name) || !is_partition_dir(&name) {
                continue;
            } else {
                let suffix = format!(".{epoch:x}-stray");
                let keep = name.len().min(255 - suffix.len());
                let to = format!("{}{suffix}", &name[..keep]);
                strays.push((dir.join(&name), dir.join(&to)));
                to
            };
            disk.rename(&dir.join(&name), &dir.join(&to)).await?;
            renamed = true;
        }
        if renamed {
            disk.sync_dir(&dir).await?;
        }
        Ok(())
    }
}

fn corrupt(dir: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} holds a corrupt batch", dir.display()),
    )
}

/// Whether a name is `<topic>-<partition>`.
fn is_partition_dir(name: &str) -> bool {
    name.rsplit_once('-')
        .is_some_and(|(topic, partition)| !topic.is_empty() && partition.parse::<u32>().is_ok())
}

/// Whether a partition's directory says that it is of this topic; `None` if it does not say.
async fn names_topic<D: Disk>(disk: &D, dir: &Path, topic_id: TopicId) -> io::Result<Option<bool>> {
    match read_file(disk, &dir.join("partition.metadata"), 4096).await {
        Ok(bytes) => Ok(Some(bytes == partition_metadata(topic_id).as_bytes())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the first bytes of a file.
async fn read_start<D: Disk>(disk: &D, path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).await?;
    read_range(disk, &file, 0, bytes).await
}

/// Reads a range of a file, all of it.
async fn read_range<D: Disk>(
    disk: &D,
    file: &D::File,
    position: u64,
    bytes: u64,
) -> io::Result<Vec<u8>> {
    let end = position + bytes;
    let mut at = block_floor(position);
    let mut out = Vec::with_capacity(bytes as usize);
    while at < end {
        let wanted = (end - at).min(4 << 20) as usize;
        let (result, buf) = disk
            .read_at(file, at, ring::buf::AlignedBuf::zeroed(wanted))
            .await;
        let read = result?.min(wanted);
        // Only a file's end is no multiple of a block.
        if read < wanted && !read.is_multiple_of(BLOCK_BYTES) || read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than the log",
            ));
        }
        let skip = position.saturating_sub(at) as usize;
        out.extend_from_slice(&buf[skip..read]);
        at += read as u64;
    }
    Ok(out)
}

/// Whether the bytes that a straight write was to leave in its segment are there. They are flushed
/// first: what is taken for true now must not go away later.
async fn is_in_segment<D: Disk>(
    disk: &D,
    path: &Path,
    reference: &Reference<'_>,
) -> io::Result<bool> {
    let file = match disk.open(path, OpenMode::ReadWrite).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    disk.sync_data(&file).await?;
    if disk.length(&file).await? < reference.to {
        return Ok(false);
    }
    let mut hash = Xxh3::new();
    let mut at = reference.from;
    while at < reference.to {
        let piece = (reference.to - at).min(1 << 20);
        hash.update(&read_range(disk, &file, at, piece).await?);
        at += piece;
    }
    Ok(reference.matches(hash.digest()))
}

/// Both steps of recovery in one, for those who know every partition beforehand.
pub async fn recover<D: Disk>(
    disk: &D,
    dirs: &[PathBuf],
    cores: u16,
    known: impl Fn(&PartitionKey) -> bool,
    owner_of: impl Fn(&PartitionKey) -> CoreId,
) -> Recovered {
    let judge = |key: &PartitionKey| if known(key) { Known::Yes } else { Known::No };
    scan(disk, dirs)
        .await
        .finish(disk, cores, judge, owner_of)
        .await
}

/// Removes journals and checkpoints of starts before `epoch`. Only when every core has told
/// [`Notice::Ready`](crate::store::Notice::Ready), and only in directories that no core has lost: what
/// could not be recovered from a directory lies in its old journals alone.
///
/// # Errors
/// Those of the disk; what is left over is removed by the next start.
pub async fn discard_older<D: Disk>(disk: &D, dirs: &[PathBuf], epoch: u64) -> io::Result<()> {
    for dir in dirs {
        // First they stop to count: half a journal would look like one that lost its data.
        write_file(disk, &complete_path(dir), format!("{epoch}\n").as_bytes()).await?;
        let journals = journal::journal_dir(dir);
        for entry in disk.list_dir(&journals).await? {
            if journal::parse_journal_file_name(&entry.name).is_some_and(|(of, _)| of < epoch) {
                disk.remove_file(&journals.join(&entry.name)).await?;
            }
        }
        disk.sync_dir(&journals).await?;
        let checkpoints = checkpoint::checkpoint_dir(dir);
        for entry in disk.list_dir(&checkpoints).await? {
            if checkpoint::parse_checkpoint_name(&entry.name).is_some_and(|(of, _)| of < epoch) {
                disk.remove_file(&checkpoints.join(&entry.name)).await?;
            }
        }
        disk.sync_dir(&checkpoints).await?;
    }
    Ok(())
}
