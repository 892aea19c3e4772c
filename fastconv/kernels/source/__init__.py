"""What is compiled: each function here makes a function of integers that numba compiles; nothing else imports numba.

`fastconv.native.objects.compiled` names them and takes what was compiled before from disk.
"""
