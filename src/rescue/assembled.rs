//! A layer's archive put together again from its recipe and the files of its directory, bit for bit.

use std::io::{self, ErrorKind, Read};

use sha2::{Digest, Sha256};

use super::recipe::{CRC, Piece, Promise, Recipe};
use super::tree::{Absent, PATH_MAX, Tree, path_of};
use crate::bytes::Bytes;
use crate::dir::Content;
use crate::error::{Error, Result, errno_of};
use crate::interrupt::Interrupt;

/// How many files are named that do not fit; the others are counted.
const NAMED_MAX: usize = 1000;
/// How much of a file is read at once, in bytes.
const AT_ONCE: usize = 128 << 10;

/// The archive, as a reader. It ends with an error at the first file that does not fit the recipe;
/// [`Assembled::faults`] has all of them then.
pub struct Assembled<'s> {
    recipe: Recipe,
    tree: Tree<'s>,
    now: Now,
    digest: Sha256,
    faults: Vec<Misfit>,
    /// How many faults there are beside those.
    more: usize,
    /// What is wrong with the recipe itself.
    damage: Option<String>,
}

/// A file that is not what a recipe says.
#[derive(Debug)]
pub struct Misfit {
    /// In the layer.
    pub path: Bytes,
    pub what: String,
}

/// What is being read.
enum Now {
    /// The next piece of the recipe.
    Between,
    Bytes(Vec<u8>, usize),
    File(Box<Open>),
    End,
    /// Something does not fit.
    Failed,
}

/// A file whose content is being read.
struct Open {
    content: Content,
    promise: Promise,
    left: u64,
    crc: crc::Digest<'static, u64, crc::Table<16>>,
}

impl<'s> Assembled<'s> {
    pub fn new(recipe: Recipe, tree: Tree<'s>) -> Assembled<'s> {
        Assembled {
            recipe,
            tree,
            now: Now::Between,
            digest: Sha256::new(),
            faults: Vec::new(),
            more: 0,
            damage: None,
        }
    }

    /// What does not fit, each named with the layer; nothing where all was read and fits.
    ///
    /// `layer` and `recipe` are what messages call the layer, and the recipe's file.
    pub fn faults(self, layer: &str, recipe: &Bytes, diff_id: Option<&str>) -> Vec<Error> {
        let of_file = |of: Misfit| Error::damaged(format!("layer {layer}: {}", of.path), of.what);
        let mut faults: Vec<Error> = self.faults.into_iter().map(of_file).collect();
        if self.more > 0 {
            let what = format!("{} more files do not fit the recipe", self.more);
            faults.push(Error::damaged(format!("layer {layer}"), what));
        }
        faults.extend(self.damage.map(|what| Error::damaged(recipe.clone(), what)));
        let is_whole = faults.is_empty() && matches!(self.now, Now::End);
        let own = is_whole.then(|| super::hex(&self.digest.finalize()));
        if let (Some(own), Some(diff_id)) = (own, diff_id)
            && diff_id != format!("sha256:{own}")
        {
            let what = format!("gives sha256:{own}, and the layer {layer} is {diff_id}");
            faults.push(Error::damaged(recipe.clone(), what));
        }
        faults
    }

    /// Goes on to the next piece that has bytes. None: the archive ends here.
    fn go_on(&mut self) -> Result<Option<Now>, Option<Misfit>> {
        loop {
            let piece = self.recipe.next().map_err(|what| {
                self.damage = Some(what);
                None
            })?;
            match piece {
                None => return Ok(None),
                Some(Piece::Bytes(bytes)) if !bytes.is_empty() => {
                    return Ok(Some(Now::Bytes(bytes, 0)));
                }
                Some(Piece::File(promise)) if promise.size > 0 => {
                    return self.open(promise).map(Some).map_err(Some);
                }
                Some(_) => {}
            }
        }
    }

    fn open(&mut self, promise: Promise) -> Result<Now, Misfit> {
        let path = || path_of(&promise.name);
        let content = self.tree.open(&promise.name).map_err(|absent| Misfit {
            path: path(),
            what: match absent {
                Absent::Missing => "is missing".into(),
                Absent::OtherType => "is no file, and the recipe has one".into(),
                Absent::Outside => "leads out of the layer: refused".into(),
                Absent::Unread(error) => format!("cannot be read: {error}"),
            },
        })?;
        let size = content.opened().size;
        if size != promise.size {
            let what = format!("has {size} bytes, and the recipe {}", promise.size);
            return Err(Misfit { path: path(), what });
        }
        Ok(Now::File(Box::new(Open {
            content,
            left: promise.size,
            crc: CRC.digest(),
            promise,
        })))
    }

    /// Reads the rest for what else does not fit, once nothing can be made of it any more.
    fn look_through(&mut self, first: Option<Misfit>) -> io::Error {
        self.now = Now::Failed;
        let mut next = first;
        let mut buffer = Vec::new();
        loop {
            if let Some(misfit) = next.take() {
                let is_short = misfit.path.as_bytes().len() <= PATH_MAX;
                if self.faults.len() < NAMED_MAX && is_short {
                    self.faults.push(misfit);
                } else {
                    self.more += 1;
                }
            } else if self.damage.is_some() {
                break;
            }
            if Interrupt::catch_all().is_pressed() {
                break;
            }
            match self.go_on() {
                Ok(None) => break,
                Ok(Some(Now::File(mut open))) => {
                    buffer.resize(AT_ONCE, 0);
                    next = loop {
                        match open.read(&mut buffer) {
                            Ok(0) => break None,
                            Ok(_) => {}
                            Err(misfit) => break Some(misfit),
                        }
                    };
                }
                Ok(Some(_)) => {}
                Err(misfit) => next = misfit,
            }
        }
        io::Error::new(ErrorKind::InvalidData, "the layer does not fit its recipe")
    }
}

impl Open {
    /// Reads on. Nothing is left when the content is what was promised.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Misfit> {
        let misfit = |what: String| Misfit {
            path: path_of(&self.promise.name),
            what,
        };
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most > 0 {
            let count = loop {
                match self.content.read(&mut buffer[..most]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let count = count.map_err(|error| {
                let error = Error::io("its content", errno_of(&error));
                misfit(format!("cannot be read: {error}"))
            })?;
            if count == 0 {
                return Err(misfit("became shorter while it was read".into()));
            }
            self.crc.update(&buffer[..count]);
            self.left -= count as u64;
            return Ok(count);
        }
        let crc = std::mem::replace(&mut self.crc, CRC.digest()).finalize();
        if self.left == 0 && self.promise.crc.is_some_and(|promised| promised != crc) {
            return Err(misfit("has other content than the recipe".into()));
        }
        Ok(0)
    }
}

impl Read for Assembled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.now {
                Now::Bytes(bytes, at) => {
                    let rest = &bytes[*at..];
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    *at += count;
                    Ok(count)
                }
                Now::File(open) => open.read(buffer),
                Now::Between => Ok(0),
                Now::End => return Ok(0),
                Now::Failed => return Err(ErrorKind::InvalidData.into()),
            };
            match read {
                Ok(0) => match self.go_on() {
                    Ok(next) => self.now = next.unwrap_or(Now::End),
                    Err(misfit) => return Err(self.look_through(misfit)),
                },
                Ok(count) => {
                    self.digest.update(&buffer[..count]);
                    return Ok(count);
                }
                Err(misfit) => return Err(self.look_through(Some(misfit))),
            }
        }
    }
}
