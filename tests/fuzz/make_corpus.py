#!/usr/bin/env python3
"""Writes the seeds that the fuzzers start from into corpus/<fuzzer>/.

Needs nothing but Python. The other files in corpus/ are inputs that once failed; they are kept as they are.
"""
import collections
import gzip
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile
import zlib

CORPUS = pathlib.Path(__file__).resolve().parent / 'corpus'


def save(fuzzer, name, data):
    folder = CORPUS / fuzzer
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


# safetensors


def safetensors(header, data=b''):
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


def safetensors_seeds():
    save('safetensors_fuzzer', 'empty', safetensors({}))
    save('safetensors_fuzzer', 'metadata', safetensors({'__metadata__': {'architecture': '{"model":{}}', 'a': 'é\n'}}))
    widths = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I64': 8, 'I32': 4, 'I16': 2, 'I8': 1, 'U8': 1, 'BOOL': 1}
    header, data = {}, b''
    for dtype, width in widths.items():
        tensor = bytes([1, 0] * width)
        header[dtype] = entry(dtype, [2], len(data), len(data) + len(tensor))
        data += tensor
    save('safetensors_fuzzer', 'every_dtype', safetensors(header, data))
    save('safetensors_fuzzer', 'shapes', safetensors(
        {'z.scalar': entry('F32', [], 0, 4), 'a.matrix': entry('F32', [2, 3], 4, 28), 'none': entry('F32', [0, 4], 28, 28),
         '__metadata__': {}}, bytes(28)))


# Pickles as torch.save writes them, without torch: stand-ins under the names that the pickles import.


def torch_stand_ins():
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    for dtype in ['Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool']:
        name = dtype + 'Storage'
        setattr(torch, name, type(name, (), {'__module__': 'torch'}))
    for name in ['_rebuild_tensor_v2', '_rebuild_parameter']:
        function = types.FunctionType((lambda *arguments: None).__code__, {}, name)
        function.__module__, function.__qualname__ = 'torch._utils', name
        setattr(utils, name, function)
    torch._utils = utils
    sys.modules.update({'torch': torch, 'torch._utils': utils})
    return torch


TORCH = torch_stand_ins()


class Storage:
    def __init__(self, dtype, key, numel):
        self.id = ('storage', getattr(TORCH, dtype + 'Storage'), key, 'cpu', numel)


class Tensor:
    def __init__(self, storage, size, stride, offset=0):
        self.arguments = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return TORCH._utils._rebuild_tensor_v2, self.arguments


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return TORCH._utils._rebuild_parameter, (self.tensor, True, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Storage) else None


def pickled(value, protocol=2):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def checkpoint_value():
    weights, averages = Storage('Float', '0', 6), Storage('Float', '1', 6)
    model = collections.OrderedDict([
        ('module.sigmas', Tensor(Storage('Double', '2', 1), (1,), (1,))),
        ('module.weight', Parameter(Tensor(weights, (2, 2), (2, 1)))),
        ('module.bias', Tensor(weights, (2,), (1,), 4)),
        ('module.transposed', Tensor(weights, (3, 2), (1, 3))),
    ])
    shadow = [Tensor(averages, (1,), (1,)), Tensor(averages, (2, 2), (2, 1)), Tensor(averages, (2,), (1,), 4),
              Tensor(averages, (3, 2), (1, 3))]
    return {'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-4, 'betas': (0.9, 0.999), 'amsgrad': False}]},
            'model': model, 'ema': {'decay': 0.999, 'num_updates': 3, 'shadow_params': shadow}, 'step': 70000}


def every_dtype_value():
    names = ['Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool']
    return {'model': {name: Tensor(Storage(name, str(i), 1), (), ()) for i, name in enumerate(names)}, 'ema': None}


def archive(value, records, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', compression) as packed:
        everything = {'data.pkl': pickled(value), 'byteorder': b'little', 'version': b'3\n'}
        everything.update({f'data/{key}': data for key, data in records.items()})
        for name, data in everything.items():
            packed.writestr(zipfile.ZipInfo('archive/' + name), data, compression)
    return stream.getvalue()


def pickle_seeds():
    scalars = [None, True, False, 0, 255, 65535, -1, -2**31, 2**40, -2**62, 1.5, 'text', 'x' * 300, (), (1,), (1, 2), (1, 2, 3),
               (1, 2, 3, 4), [], [1], {}, {'a': 1}]
    cycle = []
    cycle.append(cycle)
    for protocol in (2, 4):
        save('unpickler_fuzzer', f'scalars_{protocol}', pickled(scalars, protocol))
        save('unpickler_fuzzer', f'cycle_{protocol}', pickled(cycle, protocol))
        save('unpickler_fuzzer', f'checkpoint_{protocol}', pickled(checkpoint_value(), protocol))
    save('unpickler_fuzzer', 'every_dtype', pickled(every_dtype_value()))
    save('unpickler_fuzzer', 'forbidden', pickled(print))


def checkpoint_seeds():
    six = struct.pack('<6f', *range(6))
    records = {'0': six, '1': six, '2': struct.pack('<d', 1)}
    save('torch_checkpoint_fuzzer', 'checkpoint', archive(checkpoint_value(), records))
    save('torch_checkpoint_fuzzer', 'compressed', archive(checkpoint_value(), records, zipfile.ZIP_DEFLATED))
    widths = [8, 4, 2, 2, 8, 4, 2, 1, 1, 1]
    save('torch_checkpoint_fuzzer', 'every_dtype',
         archive(every_dtype_value(), {str(i): bytes(width) for i, width in enumerate(widths)}))
    save('torch_checkpoint_fuzzer', 'forbidden', archive({'model': print}, {}))


# Zip archives


def zip_seeds():
    def packed(files, comment=b'', compression=zipfile.ZIP_STORED, zip64=False):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, 'w', compression) as archive:
            for name, data in files.items():
                with archive.open(zipfile.ZipInfo(name), 'w', force_zip64=zip64) as file:
                    file.write(data)
            archive.comment = comment
        return stream.getvalue()

    two = {'folder/a': b'first', 'folder/b': b''}
    save('zip_archive_fuzzer', 'empty', packed({}))
    save('zip_archive_fuzzer', 'two', packed(two))
    save('zip_archive_fuzzer', 'comment', packed(two, comment=b'PK\x05\x06 in a comment'))
    save('zip_archive_fuzzer', 'compressed', packed(two, compression=zipfile.ZIP_DEFLATED))
    save('zip_archive_fuzzer', 'zip64_sizes', packed(two, zip64=True))
    # With the zip64 directory record and its locator, as torch.save writes them; Python does only for large archives.
    plain = packed(two)
    entries, size, offset = struct.unpack('<HII', plain[-12:-2])
    record = struct.pack('<IQHHIIQQQQ', 0x06064b50, 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack('<IIQI', 0x07064b50, 0, offset + size, 1)
    save('zip_archive_fuzzer', 'zip64_directory', plain[:-22] + record + locator + plain[-22:])


# Images


def png_seeds():
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    def png(size, depth, colour, row, more=b'', interlace=0):
        header = struct.pack('>IIBBBBB', *size, depth, colour, 0, 0, interlace)
        rows = b''.join(b'\0' + row for _ in range(size[1]))
        return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + more + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))

    save('png_fuzzer', 'grey', png((4, 3), 8, 0, bytes(range(4))))
    save('png_fuzzer', 'one_bit', png((9, 2), 1, 0, b'\xaa\x80'))
    save('png_fuzzer', 'rgb', png((2, 2), 8, 2, bytes(range(6))))
    save('png_fuzzer', 'rgb_16_bits', png((1, 1), 16, 2, bytes(range(6))))
    save('png_fuzzer', 'alpha', png((2, 1), 8, 6, bytes(range(100, 108)), chunk(b'gAMA', struct.pack('>I', 45455))))
    save('png_fuzzer', 'grey_alpha', png((2, 2), 8, 4, bytes(range(4))))
    save('png_fuzzer', 'palette', png((4, 1), 2, 3, b'\x1b', chunk(b'PLTE', bytes(range(12))) + chunk(b'tRNS', b'\0\x80')))
    save('png_fuzzer', 'interlaced', png((1, 1), 8, 0, b'\x7f', interlace=1))
    save('png_fuzzer', 'huge_size', png((2**15, 2**12), 8, 2, b''))


def idx_seeds():
    images = struct.pack('>IIII', 0x803, 2, 3, 4) + bytes(range(24))
    save('idx_fuzzer', 'images', images)
    save('idx_fuzzer', 'images_gzip', gzip.compress(images, mtime=0))
    save('idx_fuzzer', 'labels', struct.pack('>II', 0x801, 2) + b'\0\1')
    save('idx_fuzzer', 'huge_sizes', struct.pack('>IIII', 0x803, 2**31, 2**31, 1) + bytes(24))


# The store's own JSON files


def manifest_seeds():
    small = {'format': 1, 'architecture': {'model': {'architecture': 'mlp', 'dim': 2}}}
    save('manifest_fuzzer', 'small', json.dumps(small))
    save('manifest_fuzzer', 'architecture_as_text', json.dumps({'format': 1, 'architecture': 'no JSON'}))
    row = {'label': 'bellman', 'version': 'toy@1', 'steps': 4, 'schedule': 'bellman', 'schedule_set': 'bellman-euler-g1-k4',
           'solver': 'heun', 'guidance_scale': 1.5, 'nfe': 8, 'num_samples': 64, 'trajectory_error': None, 'straightness': 0.25,
           'frechet_distance': 12.5, 'features': 'pixels', 'samples_per_second': 1e3, 'baseline': 'toy@1', 'baseline_steps': 50}
    full = small | {
        'label_names': ['shirt', 'shoe'], 'default_steps': 4, 'default_guidance_scale': 1.5, 'parent': 'toy@1', 'job_id': '12ab',
        'description': 'a "toy"', 'sha256': {'model.safetensors': 'ab'}, 'create_time': 1700000000123456789,
        'adapter': {'base_name': 'toy', 'base_version': 1, 'rank': 4, 'alpha': 8.0},
        'schedules': [{'kind': 'bellman', 'guidance_scale': 1.5, 'k_max': 4, 'knots': [0, 1, 4], 'time_grid': [0, 0.25, 1],
                       'total_cost': 0.5, 'solver': 'euler'},
                      {'kind': 'uniform', 'guidance_scale': 1, 'time_grid': [0, 0.5, 1], 'solver': 'rk45'}],
        'evaluation': [row]}
    save('manifest_fuzzer', 'full', json.dumps(full))


def schedule_set_seeds():
    def schedule_set(k_max, schedules, **more):
        return json.dumps({'format': 1, 'k_max': k_max, 'num_samples': 8, 'guidance_scale': 1.0, 'solver': 'euler',
                           'cost_matrix': [0.5] * (k_max + 1)**2, 'schedules': schedules} | more)

    one = {'knots': [0, 1], 'total_cost': 0.5}
    save('schedule_set_fuzzer', 'one_step', schedule_set(1, [one]))
    paths = [[0, 3], [0, 1, 3], [0, 1, 2, 3]]
    save('schedule_set_fuzzer', 'three_steps',
         schedule_set(3, [{'knots': path, 'total_cost': 1e-3} for path in paths], seed=2**64 - 1, job_id='12ab',
                      create_time=1700000000123456789))
    save('schedule_set_fuzzer', 'uneven_grid',
         schedule_set(3, [{'knots': path, 'total_cost': 1e-3} for path in paths], name='edm', fine_times=[0, 0.5, 0.9, 1]))
    save('schedule_set_fuzzer', 'imported',
         schedule_set(0, [{'time_grid': [0, 0.25, 1]}, {'time_grid': [0, 0.1, 0.2, 1]}], name='ays', cost_matrix=[]))


# Uploads; see model_import_fuzzer.cc for the order of the choices.


def upload(name=0, format=0, architecture=0, total=0, sha256=0, upload_id=0, alias=0, flags=0, query=0, chunks=(), end=0, restart=0):
    """Each chunk is (size, one too many, offset, checksum)."""
    flat = [value for chunk in chunks for value in chunk]
    choices = [name, format, architecture, total, sha256, upload_id, alias, flags, query, len(chunks), *flat, end]
    return [len(choices), *choices, restart]


def import_seeds():
    def seed(name, file, *uploads):
        choices = [value for one in uploads for value in one]
        save('model_import_fuzzer', name, bytes([len(choices)] + choices) + file)

    shapes = {'layers.0.weight': [1, 3], 'layers.0.bias': [1], 'layers.1.weight': [1, 1], 'layers.1.bias': [1]}
    architecture = json.dumps({'model': {'architecture': 'mlp', 'dim': 1, 'hidden': 1, 'layers': 1}})
    header, data, tensors, records = {'__metadata__': {'architecture': architecture}}, b'', {}, {}
    for i, (name, shape) in enumerate(shapes.items()):
        values = struct.pack('<3f', 0.5, 1, 2)[:12 if len(shape) == 2 and shape[1] == 3 else 4]
        header[name] = entry('F32', shape, len(data), len(data) + len(values))
        data += values
        tensors[name] = Tensor(Storage('Float', str(i), len(values) // 4), tuple(shape), tuple([1] * len(shape)))
        records[str(i)] = values
    weights = safetensors(header, data)
    checkpoint = archive({'model': tensors, 'ema': {'shadow_params': list(tensors.values())}, 'step': 1}, records)

    chunk, last = (100, 0, 0, 1), (255, 0, 0, 0)
    seed('safetensors', weights, upload(chunks=[chunk, chunk]))
    seed('safetensors_twice', weights, upload(alias=1), upload(architecture=1, flags=12))
    seed('checkpoint', checkpoint, upload(architecture=1, sha256=1), upload(format=2, flags=1))
    seed('only_checked', weights, upload(flags=2), upload(architecture=2, flags=2), upload(architecture=2))
    seed('resumed', weights, upload(upload_id=1, chunks=[chunk], end=2), upload(upload_id=1, query=1, chunks=[chunk, last]))
    seed('resumed_after_restart', weights, upload(upload_id=1, chunks=[chunk], end=2, restart=1), upload(upload_id=1, query=1),
         upload(upload_id=1, query=1))
    seed('other_options_under_one_id', weights, upload(upload_id=2, end=3), upload(upload_id=2, sha256=1), upload(name=1, upload_id=2))
    seed('bad_chunks', weights, upload(chunks=[(10, 0, 3, 1)]), upload(chunks=[(10, 0, 0, 3)]), upload(chunks=[last, last, last, (255, 3, 0, 1)]),
         upload(end=1))
    seed('bad_options', weights, upload(name=4), upload(alias=2), upload(total=7), upload(upload_id=3))
    seed('taken_over', weights, upload(upload_id=1, chunks=[chunk], end=4), upload(upload_id=1, restart=2), upload(end=4),
         upload(name=1, upload_id=1, restart=2))
    seed('wrong_digest', weights, upload(sha256=2), upload(total=1), upload(total=2))


# Requests of the Open Inference Protocol, encoded by hand.


def varint(value):
    value &= (1 << 64) - 1
    encoded = b''
    while value >= 128:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def infer_request_seeds():
    def tensor(name, datatype, shape, contents=b''):
        sizes = b''.join(field(3, size) for size in shape)
        return field(5, field(1, name) + field(2, datatype) + sizes + (field(5, contents) if contents else b''))

    def parameter(number, name, value):
        return field(number, field(1, name) + field(2, value))

    text = struct.pack('<I', 4) + b'heun'
    raw = {'steps': ('INT32', [1], struct.pack('<i', 4)), 'seed': ('UINT64', [1], struct.pack('<Q', 42)),
           'class_labels': ('INT64', [2], struct.pack('<2q', 1, -1)), 'guidance_scale': ('FP32', [1], struct.pack('<f', 2)),
           'solver': ('BYTES', [1], text), 'deterministic': ('BOOL', [1], b'\1'), 'time_grid': ('FP64', [2], struct.pack('<2d', 0, 1)),
           'initial_noise': ('FP32', [2, 1], bytes(8)), 'conditions.text': ('FP16', [1, 2], bytes(4)),
           'negative_conditions.text': ('BF16', [1, 2], bytes(4))}
    save('infer_request_fuzzer', 'raw', field(1, 'm') + field(2, '1') + field(3, 'id') + b''.join(
        tensor(name, datatype, shape) for name, (datatype, shape, _) in raw.items()) + b''.join(field(7, data) for _, _, data in raw.values()))
    save('infer_request_fuzzer', 'typed', field(1, 'm') + tensor('steps', 'INT32', [1], field(2, b'\4')) +
         tensor('seed', 'INT64', [], field(3, b'\5')) + tensor('solver', 'BYTES', [1], field(8, 'rk45')) +
         tensor('class_labels', 'UINT32', [1], field(4, b'\1')) + tensor('rtol', 'FP64', [1], field(7, struct.pack('<d', 1e-3))) +
         tensor('initial_noise', 'FP32', [1, 1], field(6, bytes(4))) + tensor('deterministic', 'BOOL', [1], field(1, b'\1')))
    save('infer_request_fuzzer', 'parameters', field(1, 'm@latest') + parameter(4, 'steps', field(2, 4)) + parameter(4, 'seed', field(5, 7)) +
         parameter(4, 'schedule', field(3, 'named')) + parameter(4, 'schedule_set', field(3, 'ays')) + parameter(4, 'timeout', field(2, 1000)) +
         parameter(4, 'priority', field(5, 3)) + parameter(4, 'triton_enable_empty_final_response', field(1, 1)) +
         field(6, field(1, 'samples') + parameter(2, 'format', field(3, 'png'))) + field(6, field(1, 'seeds')) + field(6, field(1, 'time_grid')))
    save('infer_request_fuzzer', 'wrong', field(1, 'm@1') + field(2, '2') + tensor('steps', 'INT32', [-1]) + tensor('steps', 'FP32', [1 << 40, 1 << 40]) +
         parameter(4, 'sequence_id', field(2, 1)) + parameter(4, 'nothing', b'') + field(6, field(1, 'pictures')))


def http_request_seeds():
    save('http_request_fuzzer', 'scrape', b'GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\nAccept: application/openmetrics-text;version=1.0.0,'
         b'text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n')
    save('http_request_fuzzer', 'query', b'HEAD /metrics?a=b&c HTTP/1.0\r\nA: b\r\na: c\r\n\r\nrest')
    save('http_request_fuzzer', 'no_name', b'GET / HTTP/1.1\r\n: b\r\n')
    save('http_request_fuzzer', 'post', b'POST / HTTP/1.1\r\nContent-Length: 5\r\n')


# Calls of a server's methods; see rpc_fuzzer.cc for the records and for the order of the methods.

METHODS = [
    'Generate', 'TrainJob', 'OptimizeStepsizesJob', 'DistillJob', 'EvaluateJob', 'GetJob', 'ListJobs', 'CancelJob', 'PauseJob',
    'ResumeJob', 'DeleteJob', 'WatchJob', 'ListModels', 'GetModel', 'LoadModel', 'UnloadModel', 'ImportModel', 'ExportModel', 'SetAlias',
    'MergeAdapter', 'DeleteVersion', 'GetSchedule', 'ListSchedules', 'ImportSchedule', 'DeleteSchedule', 'GetCapabilities', 'ServerLive',
    'ServerReady', 'ModelReady', 'ServerMetadata', 'ModelMetadata', 'ModelInfer', 'ModelStreamInfer', 'Check', 'Watch'
]
JOB = field(1, 'jobs/' + '#' * 12)


def double(number, value):
    return varint(number << 3 | 1) + struct.pack('<d', value)


def doubles(number, *values):
    return field(number, struct.pack(f'<{len(values)}d', *values))


def call(method, *messages):
    record = b''
    for i, message in enumerate(messages or [b'']):
        record += bytes([METHODS.index(method) | (128 if i else 0)]) + struct.pack('<H', len(message)) + message
    return record


def rpc_seeds():
    def seed(name, *calls):
        save('rpc_fuzzer', name, b''.join(calls))

    vectors, pictures = field(1, 'vectors'), field(1, 'pictures')

    def tensor(*shape, data):
        return field(1, 1) + b''.join(field(2, size) for size in shape) + field(3, data)

    embedding = field(1, 'embedding') + field(2, tensor(1, 3, data=struct.pack('<3f', 1, 2, 3)))
    seed('generate', call('Generate', pictures + field(2, 3) + field(3, 2) + field(4, 42) + field(8, b'\1\2') + double(9, 2) + field(12, 1)))
    seed('generate_solvers', *[call('Generate', vectors + field(2, 2) + field(7, solver) + field(11, 3)) for solver in (1, 2, 3, 4)])
    seed('generate_everything', call('Generate', vectors + field(3, 1) + field(5, 3) + doubles(6, 0, 0.25, 1) + field(7, 2) + field(8, b'\0') + double(9, 1.5) +
         field(10, tensor(1, 2, data=bytes(8))) + field(11, 3) + field(13, -3) + field(14, 1) + double(15, 1e-3) + double(16, 1e-3) + field(17, embedding) +
         field(18, b'\1') + field(19, embedding) + field(22, 'one')))
    seed('generate_only_checked', call('Generate', vectors + field(2, 5) + field(21, 1)), call('Generate', vectors + field(5, 4) + field(20, 'named')))

    training = field(1, 4) + field(2, 2) + double(3, 1e-3) + field(9, 2) + field(10, 1)
    architecture = json.dumps({'model': {'architecture': 'mlp', 'dim': 2, 'hidden': 4, 'layers': 1}})
    train = field(1, 'fashion-mnist-test') + field(4, 'trained') + field(5, 'best') + field(6, training)
    options = field(1, 'a job') + field(2, field(1, 'team') + field(2, 'red')) + field(3, 1) + field(4, field(1, 4102444800)) + field(5, field(1, 60)) + field(6, 1)
    seed('train', call('TrainJob', field(1, train + field(2, architecture) + double(7, 0.1) + field(8, 1) + field(11, 7)) + field(2, options) + field(3, 'id')),
         call('GetJob', JOB), call('PauseJob', JOB), call('ResumeJob', JOB), call('CancelJob', JOB), call('WatchJob', JOB), call('DeleteJob', JOB))
    seed('train_from_model', call('TrainJob', field(1, train + field(3, 'pictures')) + field(4, 1)), call('ListJobs', field(1, 1) + field(3, 'state = QUEUED')))
    optimize = vectors + field(2, 6) + field(3, 4) + double(4, 1) + field(5, 3) + field(6, 2)
    seed('optimize', call('OptimizeStepsizesJob', field(1, optimize)), call('WatchJob', JOB + field(2, 1)), call('Generate', vectors + field(2, 2) + field(5, 1)),
         call('Generate', vectors + field(2, 2) + field(7, 4)), call('GetSchedule', vectors + field(2, 2) + field(4, 1)), call('DeleteJob', JOB))
    seed('optimize_named', call('OptimizeStepsizesJob', field(1, vectors + field(2, 2) + field(3, 2) + field(8, 2) + doubles(9, 0, 0.5, 1) + field(10, 'mine') +
         field(11, 1))), call('WatchJob', JOB), call('Generate', vectors + field(2, 2) + field(5, 4) + field(20, 'mine')))
    distill = vectors + field(3, 2) + field(6, 4) + field(7, 2) + field(9, 4) + double(10, 0.25) + field(11, training) + field(15, 'fast') + field(16, 1)
    evaluation = field(3, b'\1\2') + field(6, 2) + field(10, 4) + field(11, b'')
    seed('distill', call('DistillJob', field(1, distill + field(13, evaluation) + field(14, 'student'))), call('WatchJob', JOB), call('GetModel', field(1, 'student')))
    seed('distill_adapter', call('DistillJob', field(1, distill + field(4, 2) + field(5, field(1, 1) + double(2, 2)) + field(14, 'adapted') + field(19, 1))),
         call('WatchJob', JOB), call('MergeAdapter', field(1, 'adapted@1') + field(2, 'merged') + field(3, 'whole')), call('ExportModel', field(1, 'adapted') + field(2, 2)),
         call('Generate', field(1, 'adapted@fast') + field(2, 2)))
    seed('reflow', call('DistillJob', field(1, vectors + field(2, 2) + field(3, 2) + field(6, 4) + field(7, 2) + field(9, 4) + field(11, training) + field(14, 'reflow'))),
         call('WatchJob', JOB + field(3, 1)))
    seed('evaluate', call('EvaluateJob', field(1, vectors + field(2, 'vectors') + field(3, b'\2') + field(4, b'\2') + field(5, 2) + field(6, 4) + double(9, 2) + field(10, 4) +
         field(11, b'') + field(14, 1) + field(15, 1) + field(16, doubles(3, 0, 0.5, 1)) + field(17, 'vectors@1'))), call('WatchJob', JOB))

    seed('models', call('ListModels', field(1, 1) + field(3, 'architecture = "mlp" AND state = READY')), call('GetModel', field(1, 'vectors@latest')),
         call('LoadModel', vectors + field(2, 'cpu')), call('UnloadModel', field(1, 'vectors@1')), call('SetAlias', vectors + field(2, 'best') + field(3, '1')),
         call('ExportModel', vectors), call('ExportModel', vectors + field(2, 3) + field(3, 10)), call('GetCapabilities'))
    seed('delete', call('SetAlias', pictures + field(2, 'best') + field(3, '1')), call('DeleteVersion', field(1, 'pictures@1')),
         call('SetAlias', pictures + field(2, 'best')), call('DeleteVersion', field(1, 'pictures@1') + field(2, 1)))
    seed('schedules', call('ImportSchedule', vectors + field(2, 'ays') + field(3, doubles(3, 0, 0.5, 1)) + field(3, doubles(3, 0, 0.3, 0.6, 1)) + field(4, 2) + double(5, 1)),
         call('Generate', vectors + field(2, 3) + field(5, 4) + field(20, 'ays')), call('ListSchedules', vectors + field(4, 1)),
         call('GetSchedule', vectors + field(5, 'ays')), call('ImportSchedule', vectors + field(2, 'ays') + field(3, doubles(3, 0, 1)) + field(6, 1)),
         call('DeleteSchedule', vectors + field(2, 'ays')))

    layers = {'layers.0.weight': [1, 3], 'layers.0.bias': [1], 'layers.1.weight': [1, 1], 'layers.1.bias': [1]}
    header, size = {'__metadata__': {'architecture': json.dumps({'model': {'architecture': 'mlp', 'dim': 1, 'hidden': 1, 'layers': 1}})}}, 0
    for name, shape in layers.items():
        numel = 3 if shape == [1, 3] else 1
        header[name] = entry('F32', shape, size, size + 4 * numel)
        size += 4 * numel
    weights = safetensors(header, struct.pack('<6f', *range(6)))
    start = field(1, 'toy') + field(5, len(weights)) + field(8, 'best') + field(10, 'a toy') + field(11, field(1, 'key') + field(2, 'value'))
    upload = start + field(12, 'upload')
    seed('import', call('ImportModel', field(1, start), field(2, field(2, weights[:100])), field(2, field(1, 100) + field(2, weights[100:]))),
         call('Generate', field(1, 'toy') + field(2, 2)))
    seed('import_resumed', call('ImportModel', field(1, upload), field(2, field(2, weights[:50]) + field(3, zlib.crc32(weights[:50])))),
         call('ImportModel', field(1, upload + field(13, 1))), call('ImportModel', field(1, upload), field(2, field(1, 50) + field(2, weights[50:]))))
    seed('import_wrong', call('ImportModel', field(2, field(2, b'x'))), call('ImportModel', field(1, start), field(1, start)),
         call('ImportModel', field(1, field(1, 'toy') + field(5, 10) + field(15, 5))), call('ImportModel', field(1, field(1, 'toy') + field(5, 10) + field(16, 'vectors'))))

    def input_tensor(name, datatype, shape, contents):
        return field(5, field(1, name) + field(2, datatype) + b''.join(field(3, one) for one in shape) + field(5, contents))

    infer = vectors + field(3, 'id') + input_tensor('steps', 'INT32', [1], field(2, b'\2')) + input_tensor('class_labels', 'INT64', [2], field(3, b'\1\2'))
    png = pictures + field(4, field(1, 'steps') + field(2, field(2, 2))) + field(6, field(1, 'samples') + field(2, field(1, 'format') + field(2, field(3, 'png'))))
    seed('infer', call('ServerLive'), call('ServerReady'), call('ModelReady', vectors + field(2, '1')), call('ServerMetadata'), call('ModelMetadata', vectors),
         call('ModelInfer', infer), call('ModelInfer', png))
    seed('infer_stream', call('ModelStreamInfer', infer, png, field(1, 'nothing'), infer + field(4, field(1, 'triton_enable_empty_final_response') + field(2, field(1, 1)))))
    seed('health', call('Check'), call('Check', field(1, 'boss.v1.Sampler')), call('Watch', field(1, 'no.such.Service')))
    seed('malformed', *[call(method, b'\xff\xff') for method in ('Generate', 'GetJob', 'ImportModel', 'ModelStreamInfer', 'WatchJob', 'Check', 'Watch')])
    seed('two_requests', call('GetModel', vectors, pictures), call('Generate', vectors, vectors))


if __name__ == '__main__':
    safetensors_seeds()
    pickle_seeds()
    checkpoint_seeds()
    zip_seeds()
    png_seeds()
    idx_seeds()
    manifest_seeds()
    schedule_set_seeds()
    infer_request_seeds()
    http_request_seeds()
    import_seeds()
    rpc_seeds()
