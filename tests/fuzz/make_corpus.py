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
    import_seeds()
