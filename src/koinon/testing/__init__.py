"""Conformance suites for parts that others write: each raises AssertionError and says what does not hold.

They need no test framework: call one in a test of any kind, or at a prompt.
"""

from koinon.testing.aggregator_suite import check_aggregator as check_aggregator
from koinon.testing.engine_suite import check_engine as check_engine
from koinon.testing.model_suite import check_model as check_model
from koinon.testing.partitioner_suite import check_partitioner as check_partitioner
from koinon.testing.runtime_suite import check_runtime as check_runtime
from koinon.testing.sampler_suite import check_sampler as check_sampler
from koinon.testing.server_suite import check_server as check_server
from koinon.testing.transform_suite import check_transform as check_transform
from koinon.testing.work_suite import check_work as check_work
