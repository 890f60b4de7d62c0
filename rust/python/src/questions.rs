//! `bmdb._core.Questions`: queries about eligibilities without parameters, for people and programs without the workers' code.

use std::sync::Arc;

use bmdb_core::batch::lanes;
use bmdb_core::connection::Connection as Core;
use bmdb_core::eligibility;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::batch::Eligibility;
use crate::drive;

/// Asked of the catalogue each time: tags come and go.
#[pyclass(frozen, module = "bmdb._core")]
pub(crate) struct Questions {
    core: Arc<Core>,
}

type Texts = (String, Option<String>, Option<String>);

fn texts(questions: lanes::Questions) -> Texts {
    (questions.examined, questions.statement, questions.place)
}

fn declared(given: &[PyRef<'_, Eligibility>]) -> Vec<eligibility::Eligibility> {
    let of = |given: &PyRef<'_, Eligibility>| given.declared.eligibility.clone();
    given.iter().map(of).collect()
}

impl Questions {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Questions { core }
    }
}

#[pymethods]
impl Questions {
    /// About machine `$1` (columns having, lacking, holds, eligible), for all machines that need the process, and for the place of
    /// machine `$2` among those that process `$1` could lease now. Where a tag is not there, only the first.
    fn about(&self, py: Python<'_>, wanted: &Eligibility) -> PyResult<Texts> {
        let lanes = self.core.lanes();
        drive::run(py, lanes.questions(&wanted.declared.eligibility)).map(texts)
    }

    fn about_async<'py>(
        &self,
        py: Python<'py>,
        wanted: &Eligibility,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, wanted) = (self.core.clone(), wanted.declared.eligibility.clone());
        let asked = async move { core.lanes().questions(&wanted).await };
        drive::spawn(py, asked, |py, questions| texts(questions).into_py_any(py))
    }

    /// How many machines process `$1` could lease now, by any of these.
    fn backlog(&self, py: Python<'_>, wanted: Vec<PyRef<'_, Eligibility>>) -> PyResult<String> {
        drive::run(py, self.core.lanes().backlog(&declared(&wanted)))
    }

    fn backlog_async<'py>(
        &self,
        py: Python<'py>,
        wanted: Vec<PyRef<'py, Eligibility>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (core, wanted) = (self.core.clone(), declared(&wanted));
        let asked = async move { core.lanes().backlog(&wanted).await };
        drive::spawn(py, asked, |py, text: String| text.into_py_any(py))
    }
}
