//! The errors of the core. They are data: the binding layer turns them into Python exceptions.

use std::fmt;

/// What can be wrong with something handed to the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An argument or a definition is not acceptable; the text names it and says why.
    Invalid(String),
    /// Stored bytes are damaged, cut or foreign.
    Format(String),
    /// Stored bytes were written by a newer version of this program, which can read them.
    Newer(String),
    /// A value that the state refers to is not at hand; a defect of the caller or a lost row.
    Missing(String),
}

/// `Result` with the core's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refused argument.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// Damaged bytes.
    pub fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }

    /// A missing value.
    pub fn missing(text: impl Into<String>) -> Self {
        Self::Missing(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) | Self::Format(text) | Self::Newer(text) | Self::Missing(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for Error {}
