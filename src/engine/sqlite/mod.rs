//! SQLite databases, in which newer Podmans keep what they know. They are read from bytes in
//! memory: to open one in place is to take locks and, beside a journal that an ended process left,
//! to write.
//!
//! ```text
//! NAME           the database
//! NAME-journal   its pages before a transaction that has not ended: journal
//! NAME-wal       of databases in another mode, which no engine uses: refused
//! ```
//!
//! Nothing in the bytes is trusted: SQLite is told so, only tables are read, and what it does for
//! one database is bounded.

mod journal;
mod read;
#[cfg(test)]
#[allow(clippy::disallowed_methods)] // files of its own, with no host
mod tests;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

pub use read::read;

/// What is wrong with a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage(String);

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is not what SQLite writes: {}", self.0)
    }
}

impl From<rusqlite::Error> for Damage {
    fn from(error: rusqlite::Error) -> Damage {
        Damage(error.to_string())
    }
}

/// The longest text or row that is read, in bytes.
const VALUE_MAX: i32 = 16 << 20;
/// How often SQLite may say that it has done [`STEPS`] steps more: some seconds.
const BUDGET: u32 = 50_000;
const STEPS: i32 = 10_000;
/// Where a database's beginning says how it is written to and read: 1 journal, 2 write-ahead log.
const MODES: std::ops::Range<usize> = 18..20;

/// The columns of a row: texts and blobs as they are, whole numbers in decimal, nothing of others.
pub type Row = Vec<Vec<u8>>;

/// A database, in memory.
pub struct Database {
    /// None: it is empty, as before its first transaction.
    connection: Option<Connection>,
}

impl Database {
    /// Opens a database from its bytes.
    ///
    /// # Errors
    /// What is no database, or a damaged one.
    pub fn open(mut bytes: Vec<u8>) -> Result<Database, Damage> {
        if bytes.is_empty() {
            return Ok(Database { connection: None });
        }
        // The log was looked for where the file was read; what is in memory has none.
        if let Some(modes) = bytes.get_mut(MODES) {
            modes.fill(1);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_in_memory_with_flags(flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX)?;
        let mut left = BUDGET;
        let is_spent = move || {
            left = left.saturating_sub(1);
            left == 0
        };
        connection.progress_handler(STEPS, Some(is_spent))?;
        connection.deserialize_read_exact("main", &*bytes, bytes.len(), true)?;
        let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if said != "ok" {
            return Err(Damage(said));
        }
        Ok(Database {
            connection: Some(connection),
        })
    }

    /// Whether it has a table. Views and virtual tables are none: they can be programs.
    fn has_table(&self, connection: &Connection, table: &str) -> Result<bool, Damage> {
        let count: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name = ?1",
            [table],
            |row| row.get(0),
        )?;
        Ok(count > 0)
    }

    /// The rows of a table; none where it has no such table. `table` and `columns` are the caller's
    /// own words.
    ///
    /// # Errors
    /// A damaged database; a table without such a column.
    pub fn rows(&self, table: &str, columns: &[&str]) -> Result<Vec<Row>, Damage> {
        let Some(connection) = &self.connection else {
            return Ok(Vec::new());
        };
        if !self.has_table(connection, table)? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT {} FROM {table}", columns.join(", "));
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let columns = (0..columns.len()).map(|at| match row.get_ref(at)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
                ValueRef::Integer(number) => Ok(number.to_string().into_bytes()),
                ValueRef::Null | ValueRef::Real(_) => Ok(Vec::new()),
            });
            all.push(columns.collect::<rusqlite::Result<Row>>()?);
        }
        Ok(all)
    }
}
