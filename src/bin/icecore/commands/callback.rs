//! Carries an error of the binary through an operation of the library that calls it back.

use icecore::Error;

use crate::exit::CliError;

/// Keeps an error of the binary while the library operation that called it ends.
#[derive(Default)]
pub struct CallbackError(Option<CliError>);

impl CallbackError {
    /// Ends the operation if the result is an error.
    pub fn pass(&mut self, result: Result<(), CliError>) -> Result<(), Error> {
        result.map_err(|error| {
            self.0 = Some(error);
            Error::Interrupted
        })
    }

    /// Returns the operation's result, or the error that ended it.
    pub fn done<T, E: Into<CliError>>(self, result: Result<T, E>) -> Result<T, CliError> {
        match self.0 {
            Some(error) => Err(error),
            None => result.map_err(Into::into),
        }
    }
}
