//! A client of what Kubernetes asks a container engine (CRI), as small as it can be: one call a
//! connection over HTTP/2, and messages as lists of numbered fields. Which number means what is in
//! Kubernetes' `api.proto`, and for each message where it is made or read.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A message to be sent.
#[derive(Default, Clone)]
pub struct Message(Vec<u8>);

/// Sevens of bits, the lowest first, each but the last with a mark.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

impl Message {
    pub fn number(mut self, field: u64, value: u64) -> Message {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
        self
    }

    pub fn bytes(mut self, field: u64, content: impl AsRef<[u8]>) -> Message {
        let content = content.as_ref();
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, content.len() as u64);
        self.0.extend(content);
        self
    }

    pub fn message(self, field: u64, of: &Message) -> Message {
        self.bytes(field, &of.0)
    }

    /// One entry of a map.
    pub fn entry(self, field: u64, key: &str, value: &str) -> Message {
        self.message(field, &Message::default().bytes(1, key).bytes(2, value))
    }
}

enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message that came back. What is not in it is nothing, as the encoding has it.
pub struct Fields(Vec<(u64, Value)>);

impl Fields {
    fn read(mut from: &[u8]) -> Option<Fields> {
        fn number(from: &mut &[u8]) -> Option<u64> {
            let mut value = 0;
            for shift in (0..64).step_by(7) {
                let (&byte, rest) = from.split_first()?;
                *from = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return Some(value);
                }
            }
            None
        }
        let mut found = Vec::new();
        while !from.is_empty() {
            let key = number(&mut from)?;
            let value = match key & 7 {
                0 => Value::Number(number(&mut from)?),
                2 => {
                    let length = usize::try_from(number(&mut from)?).ok()?;
                    let (content, rest) = from.split_at_checked(length)?;
                    from = rest;
                    Value::Bytes(content.to_vec())
                }
                // No message that is read here has any other.
                _ => return None,
            };
            found.push((key >> 3, value));
        }
        Some(Fields(found))
    }

    pub fn number(&self, field: u64) -> u64 {
        let mut found = self.0.iter().rev();
        let found = found.find_map(|(number, value)| match value {
            Value::Number(value) if *number == field => Some(*value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &[u8]> {
        self.0
            .iter()
            .filter_map(move |(number, value)| match value {
                Value::Bytes(value) if *number == field => Some(&value[..]),
                _ => None,
            })
    }

    pub fn bytes(&self, field: u64) -> Vec<u8> {
        self.all(field).last().unwrap_or_default().to_vec()
    }

    pub fn text(&self, field: u64) -> String {
        String::from_utf8(self.bytes(field)).expect("text")
    }

    pub fn message(&self, field: u64) -> Fields {
        Fields::read(&self.bytes(field)).expect("a message")
    }

    pub fn messages(&self, field: u64) -> Vec<Fields> {
        let all = self.all(field);
        all.map(|one| Fields::read(one).expect("a message"))
            .collect()
    }
}

/// Who asks, and whom.
pub struct Client {
    pub socket: PathBuf,
}

/// How long a daemon on a busy machine may take for an answer.
const PATIENCE: Duration = Duration::from_secs(300);
/// How much an answer may have, before more is asked for.
const WINDOW: u32 = 1 << 24;

/// Kinds of frames, and their flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The only stream there is.
const STREAM: u32 = 1;

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len())
        .expect("a small one")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

/// Headers as they are, without a table of those that were sent before.
fn headers(all: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in all {
        out.push(0);
        for word in [name, value] {
            let length = u8::try_from(word.len()).expect("a short one");
            assert!(length < 0x7f, "{word}");
            out.push(length);
            out.extend(word.as_bytes());
        }
    }
    out
}

fn exchange(socket: &Path, method: &str, request: &Message) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // The size of a stream's first window is the fourth setting.
    let settings = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
    sent.extend(frame(SETTINGS, 0, 0, &settings));
    sent.extend(frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes()));
    let path = format!("/runtime.v1.{method}");
    let asked = headers(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    sent.extend(frame(HEADERS, END_HEADERS, STREAM, &asked));
    // Not compressed, and so long.
    let length = u32::try_from(request.0.len()).expect("a small one");
    let content = [&[0][..], &length.to_be_bytes(), &request.0].concat();
    sent.extend(frame(DATA, END_STREAM, STREAM, &content));
    stream.write_all(&sent)?;
    let mut answer = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; length as usize];
        stream.read_exact(&mut content)?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            DATA => answer.extend(content),
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &content))?,
            RESET | GO_AWAY => return Err(io::Error::other(content.escape_ascii().to_string())),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Ok(answer);
        }
    }
}

impl Client {
    /// Asks a method, such as `RuntimeService/Version`.
    ///
    /// # Errors
    /// The daemon refuses: it answers without a message, and its log says why.
    pub fn ask(&self, method: &str, request: &Message) -> Result<Fields, String> {
        let answer = exchange(&self.socket, method, request);
        let answer = answer.map_err(|error| format!("{method}: {error}"))?;
        // The first five bytes are what was sent before a request, too.
        let message = answer.get(5..).and_then(Fields::read);
        message.ok_or_else(|| format!("{method} is refused"))
    }
}
