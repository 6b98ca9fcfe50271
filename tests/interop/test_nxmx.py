"""The independent reader nxmx sees our pixels, beam, axis and detector."""

import h5py
import numpy as np
import pytest

from nanoed.sim.dataset import Nominal, write_dataset

nxmx = pytest.importorskip("nxmx", reason="the package nxmx is not installed")


@pytest.fixture
def nominal():
    return Nominal(
        voltage_kv=200.0,
        shape=(40, 60),
        a_per_px=0.01,
        pixel_size_um=55.0,
        centre_px=(31.0, 18.0),
        exposure_s=0.5,
        alpha_deg=np.array([-1.0, 0.0, 1.0, 2.0]),
        axis_azimuth_deg=38.0,
        protocol="continuous_rotation",
        semi_angle_deg=0.0,
        rotation_deg=1.0,
        gain=1.0,
        saturation=4095,
    )


@pytest.fixture
def entry(nominal, tmp_path):
    frames = [np.full(nominal.shape, i, np.uint16) for i in range(4)]
    with h5py.File(write_dataset(tmp_path, nominal, frames)) as file:
        yield nxmx.NXmx(file).entries[0]


def test_pixels_and_beam(entry):
    data = entry.data[0]
    assert data[data.signal].shape == (4, 40, 60)
    assert data[data.signal][2].max() == 2
    beam = entry.instruments[0].beams[0]
    assert beam.incident_wavelength.to("angstrom").magnitude == pytest.approx(0.0250793, abs=1e-7)


def test_the_axis_is_ours_in_nexus_axes(entry):
    """NeXus vectors are diag(-1, 1, -1) times ours; the unconverted axis must not pass."""
    chain = nxmx.get_dependency_chain(entry.samples[0].depends_on)
    axes = nxmx.get_rotation_axes(chain)
    azimuth = np.radians(38.0)
    assert np.allclose(axes.axes[0], [-np.cos(azimuth), np.sin(azimuth), 0], atol=1e-12)
    assert not np.allclose(axes.axes[0], [np.cos(azimuth), np.sin(azimuth), 0], atol=1e-12)
    assert axes.is_scan_axis[0]
    alpha = entry.samples[0].transformations[0].axes["alpha"]
    assert np.allclose(alpha[()].to("degrees").magnitude, [-1.5, -0.5, 0.5, 1.5])
    assert np.allclose(alpha.end[()].to("degrees").magnitude, [-0.5, 0.5, 1.5, 2.5])


def test_detector_geometry(entry, nominal):
    """A reflection at g_x lies where the detector of the file has it: pixel = centre + g L λ / pixel size."""
    detector = entry.instruments[0].detectors[0]
    module = detector.modules[0]
    assert detector.sensor_material == "Si"
    assert detector.saturation_value == 4095
    corner = nxmx.get_cumulative_transformation(nxmx.get_dependency_chain(module.module_offset))[0, :3, 3]
    pixel = 55e-3
    distance = detector.distance.to("mm").magnitude
    assert distance == pytest.approx(pixel / (0.0250793 * nominal.a_per_px), rel=1e-5)
    fast, slow = (np.array(d.vector) for d in (module.fast_pixel_direction, module.slow_pixel_direction))
    beam = (np.array([0, 0, distance]) - corner) / pixel
    assert np.allclose([beam @ fast, beam @ slow, beam[2]], [*nominal.centre_px, 0], atol=1e-9)
    assert np.allclose(np.cross(fast, slow), [0, 0, 1])
    assert detector.count_time.to("s").magnitude == 0.5
