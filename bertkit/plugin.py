"""All that a backend, a launcher, a task or a collective plug-in may import from bertkit, and `bertkit.conformance`.

What is here stays, or changes with a note in the changelog. Nothing else of the core is promised to a plug-in.
"""

# ruff: noqa: I001 - grouped by what a plug-in author looks for
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The seam: what a backend says of itself, and what an engine is given
    from bertkit.engine.interface import (
        Arrays,
        Batch,
        BatchLimits,
        Capabilities,
        DeviceFacts,
        Engine,
        Exchange,
        Int8Calibration,
        Extra,
        Job,
        LABELS,
        LayoutKind,
        Limits,
        LossSpec,
        LossScaling,
        OF_TEACHER,
        OF_TOKENS,
        OptimizerSpec,
        Peak,
        Precision,
        Probe,
        Scalars,
        Setting,
        StatesLoss,
        StateTerm,
        Update,
        sequence_lengths,
    )

    # A batch laid out for a device
    from bertkit.engine.layouts import Grain, Group, Layout, lay_out
    from bertkit.engine.static_shapes import (
        Shapes,
        Sizes,
        Static,
        shapes as static_sizes,
        static as static_batch,
    )

    from bertkit.engine.static_plan import Filled, StaticPlan
    from bertkit.engine.warm_up import does_not_fit, planned_does_not_fit, warm_up
    from bertkit.engine.static_engine import StaticEngine

    # A profile of an engine whose profiler writes another form
    from bertkit.engine.chrome_trace import TraceLine, TraceSpan, write_chrome_trace

    # A trained model in another program's format
    from bertkit.engine.exports import EXPORTED_HEADS, ExportedModel, PaddedModel, TextRules
    from bertkit.engine.padded_engine import PaddedEngine

    # What a checkpoint gives back
    from bertkit.engine.state import read as read_array

    # Loss scaling for fp16
    from bertkit.engine.loss_scaling import (
        MOST as MOST_SCALING,
        begun as loss_scaling,
        check as check_scaling,
        restored as restored_scaling,
    )

    # Serving a trained model
    from bertkit.data.features import Features
    from bertkit.launch.serving import ServeOptions

    # The Open Inference Protocol

    # The Open Inference Protocol
    from bertkit.engine.inference_protocol import (
        HEADER_LENGTH as INFER_HEADER,
        JSON_TYPE,
        Body as InferBody,
        InferRequest,
        InferResponse,
        decode_request as decode_infer_request,
        encode_response as encode_infer_response,
        error_body as infer_error,
        json_object,
        to_bytes as json_bytes,
    )
    from bertkit.engine.protocol_tensors import BYTES as TEXTS, Tensor as InferTensor, tensor as infer_tensor

    # Tasks
    from bertkit.data.tasks import find_task
    from bertkit.data.tasks.makers import table_task
    from bertkit.data.tasks.task import Columns, Split, Task

    # The model
    from bertkit.model.config import Head, HeadKind, ModelConfig, PER_TOKEN, to_mapping as config_mapping
    from bertkit.model.int8 import (
        INT8_COPIES,
        INT8_DIVISORS,
        INT8_WEIGHTS,
        Int8Inputs,
        Int8Layer,
        copied_neurons,
        extreme_weights,
        int8_inputs,
        int8_layer,
        int8_layers_at,
        scales_place,
    )
    from bertkit.model.parameters import PROJECTION, decays, rate_factors
    from bertkit.model.formats.file_kinds import Unread

    # The processes of a job, and sums over them
    from bertkit.distributed.world import World
    from bertkit.distributed.clusters import Nodes, own_device
    from bertkit.distributed.collectives import (
        Absent,
        Flat,
        GRACE,
        Joined,
        Rendezvous,
        join as join_ranks,
        meeting_place,
    )
    from bertkit.distributed.host_sums import (
        Add as AddSums,
        FlatType,
        add as add_sums,
        empty as empty_sum_buffer,
    )

    # Tasks on the workers of a cluster
    from bertkit.distributed.workers import GO_ON, Workers

    # The machine
    from bertkit.distributed.topology import (
        Core,
        Machine,
        compute_threads,
        format_cpu_list,
        read_cpu_list,
        read_machine,
        usable_cpus,
    )
    from bertkit.records.host import cpu_model, cpuinfo, process_peak_memory

    # Starting processes
    from bertkit.launch.interface import (
        SlurmOptions,
        Binding,
        Domain,
        LaunchPlan,
        Process,
        Request,
        free_port,
        rank_command,
        refuse_nested,
        resumed as resumed_command,
    )
    from bertkit.launch.affinity import (
        PLACES,
        domains as placing_domains,
        find_allocator,
        format_places,
        places as binding_places,
        rank_env,
        thread_count,
    )
    from bertkit.launch.children import module_command

    # Files, values from outside, and errors
    from bertkit.files.disk import write_atomically, write_text
    from bertkit.files.inputs import read_text_if_there, parse_json, read_object, whole_number
    from bertkit.errors import DoesNotFit, UserError, out_of_memory

# Name -> (module, its name there). Imported when a plug-in asks for it: a card needs little, and is looked at often.
_PLACES = {
    "INFER_HEADER": ("engine.inference_protocol", "HEADER_LENGTH"),
    "JSON_TYPE": ("engine.inference_protocol", "JSON_TYPE"),
    "InferBody": ("engine.inference_protocol", "Body"),
    "InferRequest": ("engine.inference_protocol", "InferRequest"),
    "InferResponse": ("engine.inference_protocol", "InferResponse"),
    "copied_neurons": ("model.int8", "copied_neurons"),
    "decode_infer_request": ("engine.inference_protocol", "decode_request"),
    "extreme_weights": ("model.int8", "extreme_weights"),
    "encode_infer_response": ("engine.inference_protocol", "encode_response"),
    "infer_error": ("engine.inference_protocol", "error_body"),
    "int8_inputs": ("model.int8", "int8_inputs"),
    "int8_layer": ("model.int8", "int8_layer"),
    "int8_layers_at": ("model.int8", "int8_layers_at"),
    "json_object": ("engine.inference_protocol", "json_object"),
    "json_bytes": ("engine.inference_protocol", "to_bytes"),
    "TEXTS": ("engine.protocol_tensors", "BYTES"),
    "InferTensor": ("engine.protocol_tensors", "Tensor"),
    "infer_tensor": ("engine.protocol_tensors", "tensor"),
    "compute_threads": ("distributed.topology", "compute_threads"),
    "does_not_fit": ("engine.warm_up", "does_not_fit"),
    "find_task": ("data.tasks", "find_task"),
    "planned_does_not_fit": ("engine.warm_up", "planned_does_not_fit"),
    "process_peak_memory": ("records.host", "process_peak_memory"),
    "table_task": ("data.tasks.makers", "table_task"),
    "Columns": ("data.tasks.task", "Columns"),
    "Split": ("data.tasks.task", "Split"),
    "StaticEngine": ("engine.static_engine", "StaticEngine"),
    "Task": ("data.tasks.task", "Task"),
    "Absent": ("distributed.collectives", "Absent"),
    "AddSums": ("distributed.host_sums", "Add"),
    "Arrays": ("engine.interface", "Arrays"),
    "Batch": ("engine.interface", "Batch"),
    "BatchLimits": ("engine.interface", "BatchLimits"),
    "Binding": ("launch.interface", "Binding"),
    "Capabilities": ("engine.interface", "Capabilities"),
    "Core": ("distributed.topology", "Core"),
    "DoesNotFit": ("errors", "DoesNotFit"),
    "DeviceFacts": ("engine.interface", "DeviceFacts"),
    "Domain": ("launch.interface", "Domain"),
    "Engine": ("engine.interface", "Engine"),
    "Exchange": ("engine.interface", "Exchange"),
    "EXPORTED_HEADS": ("engine.exports", "EXPORTED_HEADS"),
    "ExportedModel": ("engine.exports", "ExportedModel"),
    "Extra": ("engine.interface", "Extra"),
    "Features": ("data.features", "Features"),
    "Filled": ("engine.static_plan", "Filled"),
    "Flat": ("distributed.collectives", "Flat"),
    "FlatType": ("distributed.host_sums", "FlatType"),
    "GRACE": ("distributed.collectives", "GRACE"),
    "Grain": ("engine.layouts", "Grain"),
    "Group": ("engine.layouts", "Group"),
    "Head": ("model.config", "Head"),
    "HeadKind": ("model.config", "HeadKind"),
    "INT8_COPIES": ("model.int8", "INT8_COPIES"),
    "INT8_DIVISORS": ("model.int8", "INT8_DIVISORS"),
    "INT8_WEIGHTS": ("model.int8", "INT8_WEIGHTS"),
    "Int8Calibration": ("engine.interface", "Int8Calibration"),
    "Int8Inputs": ("model.int8", "Int8Inputs"),
    "Int8Layer": ("model.int8", "Int8Layer"),
    "Job": ("engine.interface", "Job"),
    "LABELS": ("engine.interface", "LABELS"),
    "PER_TOKEN": ("model.config", "PER_TOKEN"),
    "Joined": ("distributed.collectives", "Joined"),
    "LaunchPlan": ("launch.interface", "LaunchPlan"),
    "Layout": ("engine.layouts", "Layout"),
    "LayoutKind": ("engine.interface", "LayoutKind"),
    "Limits": ("engine.interface", "Limits"),
    "LossSpec": ("engine.interface", "LossSpec"),
    "LossScaling": ("engine.interface", "LossScaling"),
    "Machine": ("distributed.topology", "Machine"),
    "MOST_SCALING": ("engine.loss_scaling", "MOST"),
    "ModelConfig": ("model.config", "ModelConfig"),
    "OF_TEACHER": ("engine.interface", "OF_TEACHER"),
    "OF_TOKENS": ("engine.interface", "OF_TOKENS"),
    "OptimizerSpec": ("engine.interface", "OptimizerSpec"),
    "PROJECTION": ("model.parameters", "PROJECTION"),
    "StateTerm": ("engine.interface", "StateTerm"),
    "StatesLoss": ("engine.interface", "StatesLoss"),
    "Nodes": ("distributed.clusters", "Nodes"),
    "PLACES": ("launch.affinity", "PLACES"),
    "PaddedEngine": ("engine.padded_engine", "PaddedEngine"),
    "PaddedModel": ("engine.exports", "PaddedModel"),
    "Peak": ("engine.interface", "Peak"),
    "Precision": ("engine.interface", "Precision"),
    "Probe": ("engine.interface", "Probe"),
    "Process": ("launch.interface", "Process"),
    "Rendezvous": ("distributed.collectives", "Rendezvous"),
    "Request": ("launch.interface", "Request"),
    "Scalars": ("engine.interface", "Scalars"),
    "ServeOptions": ("launch.serving", "ServeOptions"),
    "Setting": ("engine.interface", "Setting"),
    "Shapes": ("engine.static_shapes", "Shapes"),
    "Sizes": ("engine.static_shapes", "Sizes"),
    "SlurmOptions": ("launch.interface", "SlurmOptions"),
    "Static": ("engine.static_shapes", "Static"),
    "StaticPlan": ("engine.static_plan", "StaticPlan"),
    "TextRules": ("engine.exports", "TextRules"),
    "TraceLine": ("engine.chrome_trace", "TraceLine"),
    "TraceSpan": ("engine.chrome_trace", "TraceSpan"),
    "Unread": ("model.formats.file_kinds", "Unread"),
    "Update": ("engine.interface", "Update"),
    "UserError": ("errors", "UserError"),
    "GO_ON": ("distributed.workers", "GO_ON"),
    "Workers": ("distributed.workers", "Workers"),
    "World": ("distributed.world", "World"),
    "add_sums": ("distributed.host_sums", "add"),
    "binding_places": ("launch.affinity", "places"),
    "check_scaling": ("engine.loss_scaling", "check"),
    "config_mapping": ("model.config", "to_mapping"),
    "cpu_model": ("records.host", "cpu_model"),
    "cpuinfo": ("records.host", "cpuinfo"),
    "decays": ("model.parameters", "decays"),
    "rate_factors": ("model.parameters", "rate_factors"),
    "empty_sum_buffer": ("distributed.host_sums", "empty"),
    "find_allocator": ("launch.affinity", "find_allocator"),
    "format_cpu_list": ("distributed.topology", "format_cpu_list"),
    "format_places": ("launch.affinity", "format_places"),
    "free_port": ("launch.interface", "free_port"),
    "join_ranks": ("distributed.collectives", "join"),
    "lay_out": ("engine.layouts", "lay_out"),
    "loss_scaling": ("engine.loss_scaling", "begun"),
    "meeting_place": ("distributed.collectives", "meeting_place"),
    "module_command": ("launch.children", "module_command"),
    "out_of_memory": ("errors", "out_of_memory"),
    "own_device": ("distributed.clusters", "own_device"),
    "parse_json": ("files.inputs", "parse_json"),
    "placing_domains": ("launch.affinity", "domains"),
    "rank_command": ("launch.interface", "rank_command"),
    "rank_env": ("launch.affinity", "rank_env"),
    "read_cpu_list": ("distributed.topology", "read_cpu_list"),
    "read_array": ("engine.state", "read"),
    "read_machine": ("distributed.topology", "read_machine"),
    "read_object": ("files.inputs", "read_object"),
    "read_text_if_there": ("files.inputs", "read_text_if_there"),
    "refuse_nested": ("launch.interface", "refuse_nested"),
    "restored_scaling": ("engine.loss_scaling", "restored"),
    "resumed_command": ("launch.interface", "resumed"),
    "scales_place": ("model.int8", "scales_place"),
    "sequence_lengths": ("engine.interface", "sequence_lengths"),
    "static_batch": ("engine.static_shapes", "static"),
    "static_sizes": ("engine.static_shapes", "shapes"),
    "thread_count": ("launch.affinity", "thread_count"),
    "usable_cpus": ("distributed.topology", "usable_cpus"),
    "warm_up": ("engine.warm_up", "warm_up"),
    "whole_number": ("files.inputs", "whole_number"),
    "write_atomically": ("files.disk", "write_atomically"),
    "write_chrome_trace": ("engine.chrome_trace", "write_chrome_trace"),
    "write_text": ("files.disk", "write_text"),
}
__all__ = [
    "EXPORTED_HEADS",
    "GO_ON",
    "GRACE",
    "INFER_HEADER",
    "INT8_COPIES",
    "INT8_DIVISORS",
    "INT8_WEIGHTS",
    "JSON_TYPE",
    "LABELS",
    "MOST_SCALING",
    "OF_TEACHER",
    "OF_TOKENS",
    "PER_TOKEN",
    "PLACES",
    "PROJECTION",
    "TEXTS",
    "Absent",
    "AddSums",
    "Arrays",
    "Batch",
    "BatchLimits",
    "Binding",
    "Capabilities",
    "Columns",
    "Core",
    "DeviceFacts",
    "DoesNotFit",
    "Domain",
    "Engine",
    "Exchange",
    "ExportedModel",
    "Extra",
    "Features",
    "Filled",
    "Flat",
    "FlatType",
    "Grain",
    "Group",
    "Head",
    "HeadKind",
    "InferBody",
    "InferRequest",
    "InferResponse",
    "InferTensor",
    "Int8Calibration",
    "Int8Inputs",
    "Int8Layer",
    "Job",
    "Joined",
    "LaunchPlan",
    "Layout",
    "LayoutKind",
    "Limits",
    "LossScaling",
    "LossSpec",
    "Machine",
    "ModelConfig",
    "Nodes",
    "OptimizerSpec",
    "PaddedEngine",
    "PaddedModel",
    "Peak",
    "Precision",
    "Probe",
    "Process",
    "Rendezvous",
    "Request",
    "Scalars",
    "ServeOptions",
    "Setting",
    "Shapes",
    "Sizes",
    "SlurmOptions",
    "Split",
    "StateTerm",
    "StatesLoss",
    "Static",
    "StaticEngine",
    "StaticPlan",
    "Task",
    "TextRules",
    "TraceLine",
    "TraceSpan",
    "Unread",
    "Update",
    "UserError",
    "Workers",
    "World",
    "add_sums",
    "binding_places",
    "check_scaling",
    "compute_threads",
    "config_mapping",
    "copied_neurons",
    "cpu_model",
    "cpuinfo",
    "decays",
    "decode_infer_request",
    "does_not_fit",
    "empty_sum_buffer",
    "encode_infer_response",
    "extreme_weights",
    "find_allocator",
    "find_task",
    "format_cpu_list",
    "format_places",
    "free_port",
    "infer_error",
    "infer_tensor",
    "int8_inputs",
    "int8_layer",
    "int8_layers_at",
    "join_ranks",
    "json_bytes",
    "json_object",
    "lay_out",
    "loss_scaling",
    "meeting_place",
    "module_command",
    "out_of_memory",
    "own_device",
    "parse_json",
    "placing_domains",
    "planned_does_not_fit",
    "process_peak_memory",
    "rank_command",
    "rank_env",
    "rate_factors",
    "read_array",
    "read_cpu_list",
    "read_machine",
    "read_object",
    "read_text_if_there",
    "refuse_nested",
    "restored_scaling",
    "resumed_command",
    "scales_place",
    "sequence_lengths",
    "static_batch",
    "static_sizes",
    "table_task",
    "thread_count",
    "usable_cpus",
    "warm_up",
    "whole_number",
    "write_atomically",
    "write_chrome_trace",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bertkit.plugin' has no attribute {name!r}")
    module, original = _PLACES[name]
    globals()[name] = found = getattr(import_module(f"bertkit.{module}"), original)
    return found
