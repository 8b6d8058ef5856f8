"""The JavaScript engine's library: where it is looked for and where it is put."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from stack import rust


class Library(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        patch = mock.patch.dict(os.environ, {"CARGO_HOME": str(self.home / "cargo")})
        patch.start()
        self.addCleanup(patch.stop)
        os.environ.pop("RUSTY_V8_ARCHIVE", None)
        os.environ.pop("RUSTY_V8_MIRROR", None)
        root = mock.patch.object(rust, "ROOT", self.home / "checkout")
        root.start()
        self.addCleanup(root.stop)
        (self.home / "checkout").mkdir()
        (self.home / "checkout" / "Cargo.lock").write_text('[[package]]\nname = "v8"\nversion = "150.4.0"\n')
        self.name = rust.escaped(rust.library_url())

    def offer(self, archive="librusty_v8_simdutf_release_%s-unknown-linux-gnu.a.gz" % os.uname().machine):
        offered = self.home / "shared" / "v8"
        offered.mkdir(parents=True)
        (offered / "README.md").write_text(f"copy it to `$CARGO_HOME/.rusty_v8/{self.name}`\n")
        (offered / archive).write_bytes(b"library")

    def test_an_offered_library_is_put_where_the_crate_looks(self):
        self.offer()
        self.assertFalse(rust.has_library())
        with mock.patch("stack.console.line"):
            rust.place_library()
        self.assertTrue(rust.has_library())
        self.assertEqual((self.home / "cargo" / ".rusty_v8" / self.name).read_bytes(), b"library")

    def test_a_library_under_another_name_is_left_alone(self):
        self.offer("librusty_v8_debug.a.gz")
        rust.place_library()
        self.assertFalse(rust.has_library())

    def test_a_named_archive_is_respected(self):
        os.environ["RUSTY_V8_ARCHIVE"] = "/somewhere/librusty_v8.a.gz"
        self.assertTrue(rust.has_library())

    def test_without_library_and_host_the_engine_is_quickjs(self):
        with mock.patch.object(rust, "_reachable", return_value=False):
            self.assertEqual(rust.choose_engine(), "quickjs")

    def test_where_the_host_answers_the_engine_is_v8(self):
        with mock.patch.object(rust, "_reachable", return_value=True):
            self.assertEqual(rust.choose_engine(), "v8")

    def test_the_quickjs_toolchain_file_points_cmake_to_the_installed_simde(self):
        environment = rust.quickjs_environment(self.home)
        text = Path(environment["CMAKE_TOOLCHAIN_FILE"]).read_text()
        self.assertEqual(text, 'set(FETCHCONTENT_SOURCE_DIR_SIMDE /usr/include CACHE PATH "" FORCE)\n')
