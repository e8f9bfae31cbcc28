//! The fixed header before every native frame. Plain data on the thread that holds the bytes; knows no
//! body.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 32;

/// What the header's checksum does not cover: itself, in bytes.
pub const CHECKSUM_BYTES: usize = 8;

/// Says that these are native frames: "MLRC".
pub const MAGIC: [u8; 4] = *b"MLRC";

/// Records begin at a multiple of this from the frame's first byte.
pub const RECORDS_ALIGN_BYTES: usize = 8;

/// The header, read in place. All numbers are little-endian.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// xxh3 (64 bits, seed 0) over the rest of the header, the body, and the padding after it.
    pub checksum: U64,
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// The version of the body.
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// Bits that a kind defines; 0 where it defines none.
    pub flags: U16,
    /// Length of the body, in bytes, without the padding.
    pub body_bytes: U32,
    /// Length of the record batches, in bytes.
    pub records_bytes: U32,
    /// The client's name for the request, repeated in its answer. A subscription keeps that of the request
    /// that began it.
    pub correlation_id: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why the first bytes of a frame are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The magic is another: whoever is there speaks something else.
    Magic,
    /// The frame would be longer than is allowed; its length, in bytes.
    Length(u64),
}

impl Header {
    /// The header at the front of `bytes`; `None` if it is not all there.
    pub fn from_prefix(bytes: &[u8]) -> Option<&Header> {
        Header::ref_from_prefix(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// Where the records begin, in bytes from the frame's first.
    pub fn records_start(&self) -> u64 {
        let end = HEADER_BYTES as u64 + u64::from(self.body_bytes.get());
        end.next_multiple_of(RECORDS_ALIGN_BYTES as u64)
    }

    /// Length of the whole frame, in bytes.
    pub fn frame_bytes(&self) -> u64 {
        self.records_start() + u64::from(self.records_bytes.get())
    }
}

/// The length of the frame that begins with `header`, in bytes; checks only what is needed to find its
/// end.
///
/// # Errors
/// If it is no frame, or longer than `bytes_max`.
pub fn frame_bytes(header: &[u8; HEADER_BYTES], bytes_max: usize) -> Result<usize, HeaderFault> {
    let header = zerocopy::transmute_ref!(header);
    let header: &Header = header;
    if header.magic != MAGIC {
        return Err(HeaderFault::Magic);
    }
    match usize::try_from(header.frame_bytes()) {
        Ok(bytes) if bytes <= bytes_max => Ok(bytes),
        _ => Err(HeaderFault::Length(header.frame_bytes())),
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal,)*) => {
        /// What a frame is. Answers have the highest bit set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[doc = $doc])* $name = $value,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind with this number.
            pub fn from_number(number: u8) -> Option<Kind> {
                match number {
                    $($value => Some(Kind::$name),)*
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$name => stringify!($name),)*
                }
            }
        }
    };
}

kinds! {
    /// The first frame of a client: which versions it speaks.
    Hello = 0x01,
    /// Batches to append.
    Produce = 0x02,
    /// Read partitions, and wait for more if there is too little.
    Fetch = 0x03,
    /// Read partitions for as long as the connection lives, by credit.
    Subscribe = 0x04,
    /// End a subscription.
    Unsubscribe = 0x05,
    /// More credit for a subscription; has no answer.
    Credit = 0x06,
    /// Topics, partitions, brokers; creates topics if asked to.
    Metadata = 0x07,
    /// First and last offsets, offsets by time, ends of leader epochs.
    Offsets = 0x08,
    /// An id for an idempotent producer.
    ProducerId = 0x09,
    /// Answers [`Kind::Hello`].
    HelloAnswer = 0x81,
    /// Answers [`Kind::Produce`].
    ProduceAnswer = 0x82,
    /// Answers [`Kind::Fetch`].
    FetchAnswer = 0x83,
    /// Answers [`Kind::Subscribe`].
    SubscribeAnswer = 0x84,
    /// Answers [`Kind::Unsubscribe`].
    UnsubscribeAnswer = 0x85,
    /// What a subscription brings, unasked.
    Delivery = 0x86,
    /// Answers [`Kind::Metadata`].
    MetadataAnswer = 0x87,
    /// Answers [`Kind::Offsets`].
    OffsetsAnswer = 0x88,
    /// Answers [`Kind::ProducerId`].
    ProducerIdAnswer = 0x89,
    /// Instead of an answer: the frame cannot be understood, and the connection closes.
    Refusal = 0xff,
}
