//! The declarative macro that describes a message once and makes its struct, decoder and encoder. Lives
//! on no core: it runs in the compiler. It knows no message.
//!
//! A field is written `name: Type = versions, nullable versions, tag N, default value;` where all but
//! the versions may be left out. On decoding, a field that its version does not have takes its
//! default; on encoding it is not written.

/// Describes the messages of one API, and the structs nested in them.
macro_rules! message {
    () => {};

    ($(#[$meta:meta])* request($api:ident) $name:ident $($rest:tt)*) => {
        message!(@body [$(#[$meta])* #[derive(Clone)]] [$api] $name $($rest)*);
    };
    ($(#[$meta:meta])* response($api:ident) $name:ident $($rest:tt)*) => {
        message!(@body [$(#[$meta])* #[derive(Clone)]] [$api] $name $($rest)*);
    };
    ($(#[$meta:meta])* struct $name:ident $($rest:tt)*) => {
        message!(@body [$(#[$meta])* #[derive(Clone)]] [] $name $($rest)*);
    };
    // Holds buffers that can only be moved.
    ($(#[$meta:meta])* moved struct $name:ident $($rest:tt)*) => {
        message!(@body [$(#[$meta])*] [] $name $($rest)*);
    };

    (@body [$($meta:tt)*] [$($api:ident)?] $name:ident<$life:lifetime> { $($fields:tt)* } $($rest:tt)*) => {
        message!(@fields [$($meta)*] $name [<$life>] [$life] { $($fields)* });
        $(message!(@whole $api $name [<$life>] $life);)?
        message!($($rest)*);
    };
    (@body [$($meta:tt)*] [$($api:ident)?] $name:ident { $($fields:tt)* } $($rest:tt)*) => {
        message!(@fields [$($meta)*] $name [] ['wire] { $($fields)* });
        $(message!(@whole $api $name [] '_);)?
        message!($($rest)*);
    };

    (@whole $api:ident $name:ident [$($generic:tt)*] $life:lifetime) => {
        impl $($generic)* $name $($generic)* {
            /// The key of the API that this message belongs to.
            pub const API_KEY: i16 = crate::kafka::ApiKey::$api as i16;

            /// Reads the message from where `reader` stands; what follows it is left unread.
            pub fn decode(
                reader: &mut crate::wire::Reader<$life>,
                version: i16,
            ) -> Result<Self, crate::wire::DecodeError> {
                let cx = crate::kafka::ApiKey::$api.context(version);
                crate::wire::Field::read(reader, cx)
            }

            /// Writes the message in `version`.
            pub fn encode(&self, writer: &mut crate::wire::Writer, version: i16) {
                let cx = crate::kafka::ApiKey::$api.context(version);
                crate::wire::Field::write(self, writer, cx);
            }
        }
    };

    (@fields [$($meta:tt)*] $name:ident [$($generic:tt)*] [$life:lifetime] { $(
        $(#[$field_meta:meta])*
        $field:ident: $type:ty = $versions:expr
            $(, nullable $nullable:expr)? $(, tag $tag:literal)? $(, default $default:expr)?;
    )* }) => {
        $($meta)*
        #[derive(Debug, PartialEq)]
        pub struct $name $($generic)* {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $($generic)* Default for $name $($generic)* {
            fn default() -> Self {
                $name { $($field: message!(@default $($default)?),)* }
            }
        }

        impl<$life> crate::wire::Field<$life> for $name $($generic)* {
            fn bytes_min(cx: crate::wire::Context) -> usize {
                let mut bytes = usize::from(cx.flexible);
                $(message!(@untagged [$($tag)?] {
                    if ($versions).contains(&cx.version) {
                        let cx = cx.with_nullable(message!(@nullable cx $($nullable)?));
                        bytes += <$type as crate::wire::Field>::bytes_min(cx);
                    }
                });)*
                bytes
            }

            fn read(
                reader: &mut crate::wire::Reader<$life>,
                cx: crate::wire::Context,
            ) -> Result<Self, crate::wire::DecodeError> {
                let mut message = Self::default();
                $(message!(@untagged [$($tag)?] {
                    if ($versions).contains(&cx.version) {
                        let cx = cx.with_nullable(message!(@nullable cx $($nullable)?));
                        message.$field = crate::wire::Field::read(reader, cx)?;
                    }
                });)*
                if cx.flexible {
                    reader.tagged_fields(|_tag, _reader| {
                        $(message!(@read_tagged [$($tag)?] ($versions) [$($nullable)?]
                            message.$field, _tag, _reader, cx);)*
                        Ok(())
                    })?;
                }
                Ok(message)
            }

            fn write(&self, writer: &mut crate::wire::Writer, cx: crate::wire::Context) {
                $(message!(@untagged [$($tag)?] {
                    if ($versions).contains(&cx.version) {
                        let cx = cx.with_nullable(message!(@nullable cx $($nullable)?));
                        crate::wire::Field::write(&self.$field, writer, cx);
                    }
                });)*
                if cx.flexible {
                    // A tagged field that has its default is left out.
                    let tagged_count = 0u32
                        $(+ message!(@count_tagged [$($tag)?] ($versions) [$($default)?]
                            self.$field, cx))*;
                    writer.unsigned_varint(tagged_count);
                    $(message!(@write_tagged [$($tag)?] ($versions) [$($nullable)?] [$($default)?]
                        self.$field, writer, cx);)*
                }
            }

            fn sample(random: &mut crate::fuzz::Random, cx: crate::wire::Context) -> Self {
                let mut message = Self::default();
                $(if ($versions).contains(&cx.version) {
                    let cx = cx.with_nullable(message!(@nullable cx $($nullable)?));
                    message.$field = crate::wire::Field::sample(random, cx);
                })*
                message
            }
        }
    };

    (@read_tagged [] $($rest:tt)*) => {};
    (@read_tagged [$expected:literal] ($versions:expr) [$($nullable:expr)?]
        $target:expr, $tag:ident, $reader:ident, $cx:ident) => {
        if $tag == $expected && ($versions).contains(&$cx.version) {
            let cx = $cx.with_nullable(message!(@nullable $cx $($nullable)?));
            $target = crate::wire::Field::read($reader, cx)?;
        }
    };

    (@count_tagged [] $($rest:tt)*) => { 0 };
    (@count_tagged [$tag:literal] ($versions:expr) [$($default:expr)?]
        $value:expr, $cx:ident) => {
        u32::from(($versions).contains(&$cx.version) && crate::wire::differs(&$value, message!(@default $($default)?)))
    };

    (@write_tagged [] $($rest:tt)*) => {};
    (@write_tagged [$tag:literal] ($versions:expr) [$($nullable:expr)?] [$($default:expr)?]
        $value:expr, $writer:ident, $cx:ident) => {
        if ($versions).contains(&$cx.version) && crate::wire::differs(&$value, message!(@default $($default)?)) {
            let cx = $cx.with_nullable(message!(@nullable $cx $($nullable)?));
            $writer.tagged_field($tag, |writer| {
                crate::wire::Field::write(&$value, writer, cx);
            });
        }
    };

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@nullable $cx:ident) => { false };
    (@nullable $cx:ident $nullable:expr) => { ($nullable).contains(&$cx.version) };
    (@untagged [] { $($body:tt)* }) => { $($body)* };
    (@untagged [$tag:literal] { $($body:tt)* }) => {};
}

pub(crate) use message;
