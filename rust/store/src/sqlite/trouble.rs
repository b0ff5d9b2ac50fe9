//! What SQLite says, in a sentence that names the file and what to do.

use std::sync::Arc;

use rusqlite::ffi::ErrorCode;

use crate::contract::StoreError;

/// Knows the file that the sentences are about.
#[derive(Debug, Clone)]
pub struct Trouble {
    path: Arc<str>,
}

impl Trouble {
    pub fn of(path: &str) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A sentence about the file.
    pub fn say(&self, what: &str) -> String {
        format!("SQLite file '{}': {what}", self.path)
    }

    /// The one table from SQLite's errors to ours.
    pub fn of_error(&self, error: &rusqlite::Error) -> StoreError {
        let rusqlite::Error::SqliteFailure(failure, _) = error else {
            return StoreError::Format(self.say(&format!(
                "a row is not what it should be ({error}); the file may be damaged: check it with \
                 `sayiir doctor`"
            )));
        };
        match failure.code {
            ErrorCode::NotADatabase => StoreError::Format(
                self.say("it is not a SQLite database; name another file, or move this one away"),
            ),
            ErrorCode::DatabaseCorrupt => StoreError::Format(self.say(
                "it is damaged; check it with `sayiir doctor` and restore a copy if it is not only \
                 one instance",
            )),
            ErrorCode::ConstraintViolation => StoreError::Format(self.say(&format!(
                "what is stored does not fit together ({error}); the file may be damaged: check it with \
                 `sayiir doctor`"
            ))),
            ErrorCode::DiskFull => StoreError::Unavailable(self.say(
                "the disk is full; nothing was written, and work goes on when there is space",
            )),
            ErrorCode::ReadOnly => {
                StoreError::Unavailable(self.say(
                    "it cannot be written; check the permissions of the file and of its folder",
                ))
            }
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => StoreError::Unavailable(
                self.say("it cannot be opened; check that its folder exists and may be written"),
            ),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Unavailable(
                self.say("another process has kept it locked for too long; nothing was written"),
            ),
            ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed => {
                StoreError::Unavailable(self.say(&format!(
                    "reading or writing it failed ({error}); nothing was written, check the disk"
                )))
            }
            _ => StoreError::Unavailable(self.say(&format!("SQLite refused: {error}"))),
        }
    }

    /// Whether another process has the lock, so that trying again makes sense.
    pub fn is_busy(error: &rusqlite::Error) -> bool {
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }
}
