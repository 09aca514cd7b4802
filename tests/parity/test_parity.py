"""The vectors in the repository, one test each, and what holds the deviations to the bugs they are for."""

import pytest

from tests.parity.compare import compare
from tests.parity.deviations import DEVIATIONS, Deviation, declared, expectation
from tests.parity.gcs import CALLS, GcsVector, expected
from tests.parity.gcs_deviations import GCS_DEVIATIONS, gcs_expectation
from tests.parity.operations import OperationsVector
from tests.parity.operations_deviations import OPERATION_DEVIATIONS
from tests.parity.runner import VECTORS
from tests.parity.structs import StructVector
from tests.parity.vectors import Expect, Vector, read_folder

FILES = read_folder(VECTORS)
RUNNABLE = Vector | GcsVector | StructVector | OperationsVector
RUN = [pytest.param(item, id=f"{file}-{item.name}") for file, items in FILES.items() for item in items if isinstance(item, RUNNABLE)]
GCS = [item for items in FILES.values() for item in items if isinstance(item, GcsVector)]
DOCUMENTS = [item for items in FILES.values() for item in items if isinstance(item, Vector)]


def answered(kind: str, properties: str, error: str) -> Vector:
    """A vector of our own: the repository's have no topology that cannot be read. The words are those of Go 1.19."""
    base = next(item for item in DOCUMENTS if item.kind == kind and item.expect.document and not item.expect_warnings)
    prefix = ("error in preparing config doc: " if kind == "wcow" else "") + "failed to get host processor information: "
    return Vector(
        name=f"own/{kind}/{properties}",
        input={**base.input, "host": {**base.input["host"], "service_properties": properties}},
        expect=Expect(error=prefix + error),
        expect_effects=[effect for effect in base.expect_effects if effect["op"] == "mkdir"],
    )


RETRIEVE = "failed to retrieve processor and processor topology information: "
READ = "failed to unmarshal host processor topology: "
ANSWERS = (
    ("", f"{RETRIEVE}unexpected value returned from hcs"),
    ("{", f"{RETRIEVE}unexpected end of JSON input"),
    ("no", f"{RETRIEVE}invalid character 'o' in literal null (expecting 'u')"),
    (
        '{"Properties":{}}',
        f"{RETRIEVE}json: cannot unmarshal object into Go struct field ServiceProperties.Properties of type []json.RawMessage",
    ),
    (
        '{"Properties":["4"]}',
        f"{READ}json: cannot unmarshal string into Go value of type hcsschema.ProcessorTopology",
    ),
    (
        '{"Properties":[{"LogicalProcessorCount":-1}]}',
        f"{READ}json: cannot unmarshal number -1 into Go struct field ProcessorTopology.LogicalProcessorCount of type uint32",
    ),
)
OWN = [answered(kind, properties, error) for kind in ("lcow", "wcow") for properties, error in ANSWERS]
DOCUMENTS += OWN


@pytest.mark.parametrize("vector", [*RUN, *(pytest.param(vector, id=vector.name) for vector in OWN)])
def test_we_do_what_the_original_did(vector: Vector | GcsVector | StructVector | OperationsVector) -> None:
    assert compare(vector).differences == []


def test_every_vector_of_the_repository_is_run() -> None:
    run = {file: sum(isinstance(item, RUNNABLE) for item in items) for file, items in FILES.items()}
    assert run == {
        "clone_docs": 146,
        "default_options": 42,
        "gcs_messages": 31,
        "lcow_docs": 472,
        "normalize": 126,
        "schema_json": 653,
        "verify_lcow": 121,
        "verify_wcow": 77,
        "vm_operations": 32,
        "wcow_docs": 241,
    }


def test_every_declared_deviation_has_its_code_and_a_reason() -> None:
    assert list(declared()) == [*DEVIATIONS, *GCS_DEVIATIONS, *OPERATION_DEVIATIONS]
    assert all(declared().values())


@pytest.mark.parametrize("name", DEVIATIONS)
def test_a_deviation_is_no_wider_than_its_bug(name: str) -> None:
    """Where the predicate holds and the original made a document (or crashed, if it is such a bug), its outcome is another than ours."""
    bug = DEVIATIONS[name]
    came_out = [vector for vector in DOCUMENTS if _came_out(vector, bug)]
    shown = [vector for vector in came_out if bug.is_for(vector)]
    assert shown
    for vector in shown:
        assert name in expectation(vector)[1]


def _came_out(vector: Vector, bug: Deviation) -> bool:
    if bug.fails:
        return "topology" in (vector.expect.error or "")
    return vector.expect.panic if bug.crashes else bool(vector.expect.document)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_without_a_deviation_its_vectors_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bitten = [vector for vector in DOCUMENTS if name in expectation(vector)[1]]
    monkeypatch.delitem(DEVIATIONS, name)
    assert all(compare(vector).differences for vector in bitten)


@pytest.mark.parametrize("name", GCS_DEVIATIONS)
def test_a_deviation_of_the_guest_connection_is_no_wider_than_its_bug(name: str) -> None:
    shown = [vector for vector in GCS if GCS_DEVIATIONS[name].shows(vector)]
    assert shown
    for vector in shown:
        assert GCS_DEVIATIONS[name].ours(expected(vector), vector) != expected(vector)


@pytest.mark.parametrize("name", GCS_DEVIATIONS)
def test_without_a_deviation_of_the_guest_connection_its_vectors_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bitten = [vector for vector in GCS if name in gcs_expectation(vector)[1]]
    monkeypatch.delitem(GCS_DEVIATIONS, name)
    assert all(compare(vector).differences for vector in bitten)


def test_every_kind_of_step_is_played() -> None:
    assert {step.call for vector in GCS for step in vector.steps} == set(CALLS)
