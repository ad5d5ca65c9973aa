//! Lets clients in that name a Unix socket by its path.
//!
//! gRPC libraries of the C family (Python, C++, C#, Ruby) send the percent-encoded path of the socket as
//! `:authority`: `%2Frun%2Fsocket`. The `http` crate takes no percent sign there, and the HTTP/2 server
//! resets the stream before any of our code sees the request. Nobody here looks at the authority, so
//! each percent sign in it is replaced on the way in by another character: nothing changes its length,
//! and what both ends remember for compression stays in step.
//!
//! This walks over frames and header fields without decoding them. Values that are Huffman-coded are
//! left alone: the libraries in question send plain text.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose client may name its socket in any way.
#[derive(Debug)]
pub(crate) struct AnyAuthority<C> {
    connection: C,
    walk: Walk,
}

impl<C> AnyAuthority<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self {
            connection,
            walk: Walk::new(),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for AnyAuthority<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.walk.over(&mut buffer.filled_mut()[before..]);
        outcome
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// `PRI * HTTP/2.0 …`, which each client sends first.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Static table, entry 1 (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// Or spelled out, which is what those libraries do.
const AUTHORITY_NAME: &[u8] = b":authority";

/// Where in the client's bytes we are.
#[derive(Debug)]
struct Walk {
    /// Bytes to pass over before anything else: the preface, or a frame that does not matter.
    pass: usize,
    head: [u8; FRAME_HEAD],
    head_filled: usize,
    /// Bytes of the current HEADERS frame that are still to come.
    headers: usize,
    /// Of these, bytes before the first field.
    lead: usize,
    field: Field,
}

/// Where in a header field (RFC 7541, 6) we are.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// At its first byte.
    Start,
    /// In the rest of an integer: so much so far, and the next bits go so far left.
    Integer {
        value: usize,
        shift: u32,
        then: After,
    },
    /// At the first byte of a string.
    String(Part),
    /// In a string, with so much to come.
    Text {
        left: usize,
        plain: bool,
        part: Part,
    },
}

/// What an integer was for.
#[derive(Clone, Copy, Debug)]
enum After {
    /// A whole field: an index or a table size.
    Field,
    /// The index of a name, before a value.
    Name,
    /// The length of a string.
    Length { plain: bool, part: Part },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A name, after which comes a value, and how many of its bytes are those of `:authority`, if all
    /// so far are.
    Name(Option<usize>),
    /// The value of `:authority`.
    Authority,
    /// Any other value.
    Value,
}

impl Walk {
    fn new() -> Self {
        Self {
            pass: PREFACE,
            head: [0; FRAME_HEAD],
            head_filled: 0,
            headers: 0,
            lead: 0,
            field: Field::Start,
        }
    }

    /// Goes over what has come, wherever it was cut.
    fn over(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.pass > 0 {
                let passed = self.pass.min(bytes.len());
                self.pass -= passed;
                bytes = &mut bytes[passed..];
                continue;
            }
            let (byte, rest) = bytes.split_at_mut(1);
            let byte = &mut byte[0];
            bytes = rest;
            if self.headers > 0 {
                self.headers -= 1;
                self.header_byte(byte);
            } else {
                self.head_byte(*byte);
            }
        }
    }

    fn head_byte(&mut self, byte: u8) {
        self.head[self.head_filled] = byte;
        self.head_filled += 1;
        if self.head_filled < FRAME_HEAD {
            return;
        }
        self.head_filled = 0;
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if kind == HEADERS {
            self.headers = length;
            self.lead = usize::from(flags & PADDED != 0) + 5 * usize::from(flags & PRIORITY != 0);
            self.field = Field::Start;
        } else {
            // Also what continues a HEADERS frame: the authority comes first.
            self.pass = length;
        }
    }

    /// Padding after the last field is taken for fields; it is nothing but zeros, and harms nobody.
    fn header_byte(&mut self, byte: &mut u8) {
        if self.lead > 0 {
            self.lead -= 1;
            return;
        }
        self.field = match self.field {
            Field::Start if *byte & 0x80 != 0 => integer(*byte, 0x7f, After::Field),
            Field::Start if *byte & 0x40 != 0 => integer(*byte, 0x3f, After::Name),
            Field::Start if *byte & 0x20 != 0 => integer(*byte, 0x1f, After::Field),
            Field::Start => integer(*byte, 0x0f, After::Name),
            Field::Integer { value, shift, then } => {
                let bits = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let value = value.saturating_add(bits);
                if *byte & 0x80 == 0 {
                    after(value, then)
                } else {
                    let shift = shift.saturating_add(7);
                    Field::Integer { value, shift, then }
                }
            }
            Field::String(part) => {
                let plain = *byte & 0x80 == 0;
                integer(*byte, 0x7f, After::Length { plain, part })
            }
            Field::Text { left, plain, part } => {
                if plain && part == Part::Authority && *byte == b'%' {
                    *byte = b'_';
                }
                text(left - 1, plain, part.with(*byte))
            }
        };
    }
}

impl Part {
    /// What it is after one more byte.
    fn with(self, byte: u8) -> Self {
        match self {
            Self::Name(Some(same)) if AUTHORITY_NAME.get(same) == Some(&byte) => {
                Self::Name(Some(same + 1))
            }
            Self::Name(_) => Self::Name(None),
            other => other,
        }
    }
}

/// An integer whose first bits are in `byte` (RFC 7541, 5.1).
fn integer(byte: u8, mask: u8, then: After) -> Field {
    let value = usize::from(byte & mask);
    if byte & mask == mask {
        Field::Integer {
            value,
            shift: 0,
            then,
        }
    } else {
        after(value, then)
    }
}

fn after(value: usize, integer: After) -> Field {
    match integer {
        After::Field => Field::Start,
        After::Name if value == 0 => Field::String(Part::Name(Some(0))),
        After::Name if value == AUTHORITY => Field::String(Part::Authority),
        After::Name => Field::String(Part::Value),
        After::Length { plain, part } => text(value, plain, part),
    }
}

fn text(left: usize, plain: bool, part: Part) -> Field {
    match (left, part) {
        (0, Part::Name(Some(same))) if plain && same == AUTHORITY_NAME.len() => {
            Field::String(Part::Authority)
        }
        (0, Part::Name(_)) => Field::String(Part::Value),
        (0, _) => Field::Start,
        _ => Field::Text { left, plain, part },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags, 0, 0, 0, 1]].concat();
        [&head, payload].concat()
    }

    /// `name` is the index of a name with its mark.
    fn field(name: u8, value: &str) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[name, length], value.as_bytes()].concat()
    }

    fn long_authority(mark: char) -> Vec<u8> {
        // 200 = 127 + 73.
        let text = format!("{mark}2F").repeat(66) + "ab";
        [&[0x41, 0x7f, 73], text.as_bytes()].concat()
    }

    fn conversation(mark: char) -> Vec<u8> {
        let spelled = [&[0x40][..], &[3], b"%%%", &[4], b"%2F%"].concat();
        let authority = format!("{mark}2Frun{mark}2Fsocket");
        let named = [&field(0x40, ":authority")[..], &field(0, &authority)[1..]].concat();
        let similar = |name: &str| [&field(0x40, name)[..], &[2], b"%%"].concat();
        let fields = [
            named,
            similar(":authorit"),
            similar(":authority%"),
            similar("%authority"),
            vec![0x83, 0x86],
            vec![0x3f, 0xe1, 0x1f],
            field(0x44, "/a%2Fb"),
            spelled,
            field(0x41, &authority),
            field(0x01, &authority),
            field(0x11, &authority),
            vec![0x0f, 0x2f, 2, b'%', b'%'],
            long_authority(mark),
            vec![0xff, 0x00],
            // Huffman-coded: whatever it says.
            vec![0x41, 0x82, b'%', b'%'],
        ]
        .concat();
        let padded = [
            &[3][..],
            &[0, 0, 0, 0, b'%'],
            &field(0x41, &authority),
            &[0; 3],
        ]
        .concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, b"A%%%%%"),
            frame(HEADERS, 4, &fields),
            frame(0, 0, b"\x41\x03%2F"),
            frame(HEADERS, 4 | PADDED | PRIORITY, &padded),
            frame(HEADERS, 4, &field(0x41, &authority)),
        ]
        .concat()
    }

    #[test]
    fn percent_signs_go_from_the_authority_and_from_nowhere_else() {
        let wanted = conversation('_');
        for cut in 1..wanted.len() {
            let mut bytes = conversation('%');
            let mut walk = Walk::new();
            let (first, second) = bytes.split_at_mut(cut);
            walk.over(first);
            walk.over(second);
            assert!(bytes == wanted, "cut at {cut}");
        }
        let mut bytes = conversation('%');
        let mut walk = Walk::new();
        bytes.chunks_mut(1).for_each(|byte| walk.over(byte));
        assert!(bytes == wanted);
    }

    proptest::proptest! {
        /// Nonsense does no harm, and keeps its length.
        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            stream.extend(frame(HEADERS, 4, &bytes));
            stream.extend(&bytes);
            Walk::new().over(&mut stream);
        }
    }
}
